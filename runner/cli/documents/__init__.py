"""The JSON documents that ``--json`` prints, as types; one file for each thing that they describe.

docs/json.md explains every field; a test compares the two, and what commands print. Every command prints one of ``Document``.
Times are epoch seconds, lengths of time are seconds, sizes are bytes. A field is always there: None (``null``) where its value
is not known. ``runner/cli/as_document`` fills them.
"""

from runner.cli.documents import (
    checks,
    comparison,
    dealing,
    errors,
    evaluation,
    files,
    follow,
    hosts,
    models,
    publish,
    recovery,
    runs,
    scripting,
    sweep,
    tensorboard,
)

Document = (
    errors.Failure
    | checks.Init | checks.Validate | checks.Check | checks.CheckHosts
    | dealing.Submit | dealing.DryRun
    | runs.List | runs.ListOfHost | runs.Run | runs.RunNow | runs.Watch | runs.Logs | runs.Stop | runs.StopAll
    | sweep.Sweep | comparison.Compare | tensorboard.TensorBoard
    | follow.Follow | follow.Keep
    | recovery.ResumeAll | recovery.ResumeSweep
    | files.Fetch | files.Done | files.DoneAll | files.Checkpoints | files.Report
    | models.Sample | models.SmokeTest | models.Export | models.Predict
    | evaluation.Evaluate | publish.Publish
    | hosts.Hosts | hosts.Forgotten | hosts.Moved | hosts.HostSet | hosts.UsedAgain | hosts.DefaultHost
    | hosts.Clean | hosts.CleanAll | hosts.CleanRecords
    | scripting.Ssh | scripting.Exec | scripting.Skill
)  # fmt: skip
