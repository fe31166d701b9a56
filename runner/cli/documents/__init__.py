"""The JSON documents that ``--json`` prints, as types; one file for each thing that they describe.

docs/json.md explains every field; a test compares the two, and what commands print. Every command prints one of ``Document``.
Times are epoch seconds, lengths of time are seconds, sizes are bytes. A field is always there: None (``null``) where its value
is not known. ``runner/cli/as_document`` fills them.
"""

from runner.cli.documents import checks, errors, files, follow, hosts, models, recovery, runs

Document = (
    errors.Failure
    | checks.Init | checks.Validate | checks.Check | checks.DryRun
    | runs.Submit | runs.List | runs.ListOfHost | runs.Run | runs.RunNow | runs.Logs | runs.Stop | runs.StopAll
    | follow.Follow | follow.Keep
    | recovery.ResumeAll
    | files.Fetch | files.Done | files.Checkpoints
    | models.Sample | models.SmokeTest
    | hosts.Hosts | hosts.Forgotten | hosts.Moved | hosts.HostSet | hosts.Clean
)  # fmt: skip
