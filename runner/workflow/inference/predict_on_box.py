"""``gpurun predict --host``: the same prediction as a run on a box, followed to its end; its output is brought home."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from remote_payload.settings.evaluate import ModelToMeasure
from remote_payload.settings.predict import PredictJob, PredictSettings
from remote_payload.train.data.records import find_files
from remote_payload.train.errors import InputError
from remote_payload.train.inference.rows import SUFFIXES
from runner import store
from runner.domain.answers.reading import Impossible
from runner.domain.answers.status import Status
from runner.domain.errors import ArtifactError, RunLost, UserError
from runner.domain.job import DataFrom, Hub, Job, Resources, SmokeTest
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.local_model.base import COMMIT
from runner.local_model.lines import read_predicted
from runner.workflow.connect import connect_to_run
from runner.workflow.follow_up import Display, first_error, follow_up
from runner.workflow.inference.answering import answering, answering_of
from runner.workflow.inference.evaluate_on_box import Sent
from runner.workflow.inference.predict import Prediction, check_output
from runner.workflow.inference.targets import BEST, Meant, meaning_of
from runner.workflow.observing.status import query_box
from runner.workflow.submission.plan import make_plan
from runner.workflow.submission.resumption import Resumption
from runner.workflow.submit import Options, submit

SUMMARY, REPORTS = "predicted.json", "reports"


def predict_on(
    host: str, word: str, settings: PredictSettings, told: Mapping[str, object], report: Reporter, display: Display, *,
    device: str, gpus: int,
) -> Prediction:  # fmt: skip
    """Predicts the files on the box with ``gpus`` GPUs, and brings the output here. What an earlier run there has of the same prediction
    is not predicted again. Raises what ``submit`` and ``fetch`` raise, and RunFailed."""
    check_output(settings)
    meant = meaning_of(word)
    settings = replace(settings, answering=answering(answering_of(meant.run), told))
    job = job_of(meant, settings, device=device, gpus=gpus)
    output = Path(settings.output)
    run = _run_of(job, meant, host, report)
    reports = run.outputs_here / REPORTS
    if not _is_home(run):
        error = first_error(follow_up([run], report, display))
        if error:
            raise error
    beside = output.with_name(f".{output.name}.coming")
    shutil.copyfile(reports / output.name, beside)
    os.rename(beside, output)
    try:
        said = json.loads((reports / SUMMARY).read_text("utf-8"))
        return Prediction(word, str(said["kind"]), str(said["dtype"]), settings, read_predicted(said))
    except (OSError, ValueError, KeyError, TypeError, Impossible) as error:
        raise ArtifactError(f"{reports / SUMMARY}: {error}", meaning=f"{output} is here and complete.") from None


def _run_of(job: Job, meant: Meant, host: str, report: Reporter) -> Run:
    """The run that makes this prediction: one that does so already or has done it, one that goes on after the windows of one that was
    ended, or else a new one."""
    earlier = _earlier(job, host)
    if earlier is None:
        return submit([(job, None)], host, report, Options())[0]
    is_same = earlier.job.setting("files", "bad_rows") == job.setting("files", "bad_rows")
    if _is_home(earlier) and is_same and not _may_change(meant):
        return earlier
    options = Options(volume=earlier.volume, engine=earlier.engine)
    status = _status(earlier, report)
    if status is None:
        return submit([(job, None)], host, report, options)[0]
    if not status.finished and is_same:
        report.note(f"{earlier.run_id} predicts this already: it is followed")
        return earlier
    if not _succeeded(earlier):  # one that still predicts in another way is named, and nothing is started
        return submit([(job, None)], host, report, options, Resumption(earlier, "auto"))[0]
    if is_same and not _may_change(meant):
        report.note(f"{earlier.run_id} has predicted this: its output is brought home")
        return earlier
    return submit([(job, None)], host, report, options)[0]


def _status(run: Run, report: Reporter) -> Status | None:
    """The run's status, from its box; None where that knows no such run any more."""
    try:
        with connect_to_run(run, report) as link:
            seen = query_box(link, run)
    except RunLost:
        return None
    return None if seen.not_there else seen.status


def _may_change(meant: Meant) -> bool:
    """Whether the target may be another model than it was: a branch or tag of the Hub, the best model of a run that may go on. Folders and
    checkpoints are known by their content."""
    if meant.folder:
        return False
    if meant.repository:
        return not COMMIT.fullmatch(meant.revision or "")
    return meant.run is not None and meant.checkpoint == BEST and not (meant.run.status and meant.run.status.finished)


def _earlier(job: Job, host: str) -> Run | None:
    """The newest run on this host that was to predict the same rows with the same model and settings."""
    runs = [
        run for run in store.load_all()[0] if run.host == host and run.may_be_there and _asks(run.job) == _asks(job)
    ]
    if not runs:
        return None
    sent = {tree.name: tree.key for tree in make_plan(job).data}
    return next((run for run in reversed(runs) if sent.items() <= run.data.items()), None)


def _asks(job: Job) -> tuple[object, ...]:
    """What makes two predictions the same, but for the content of files. After a bad row ended one, it may go on with such rows marked."""
    files = {**job.setting("files"), "bad_rows": None} if isinstance(job.setting("files"), dict) else None
    return job.recipe, files, job.settings.get("model"), job.settings.get("device"), job.run_outputs


def _is_home(run: Run) -> bool:
    """Whether its complete output was fetched."""
    return _succeeded(run) and (run.outputs_here / REPORTS / str(run.job.setting("files", "output"))).is_file()


def _succeeded(run: Run) -> bool:
    return run.status is not None and run.status.finished and run.status.outcome == "succeeded"


def job_of(meant: Meant, settings: PredictSettings, *, device: str, gpus: int) -> Job:
    """The job of the prediction. Raises UserError for input that is not there."""
    sent = Sent()
    sent.add(meant)
    try:
        files = find_files([str(Path(each).expanduser()) for each in settings.input], "input", SUFFIXES)
    except InputError as error:
        raise UserError(str(error)) from None
    places = _places(files)
    (model,) = sent.models
    output = Path(settings.output).name
    told = replace(settings, input=list(places.values()), output=output)
    described = PredictJob(ModelToMeasure(**model), told, device)  # type: ignore[arg-type]
    stem = re.sub(r"[^a-z0-9]+", "-", Path(output).stem.lower()).strip("-")[:30]
    data = [DataFrom(str(Path(file).absolute()), place) for file, place in places.items()]
    job = Job(
        name=f"predict-{stem}" if stem else "predict",
        recipe="predict",
        settings=asdict(described),
        data=(*data, *sent.data),
        hub=Hub(models=tuple(dict.fromkeys(sent.hub))),
        resources=Resources(gpus=0 if device == "cpu" else gpus),
        outputs=(REPORTS, "logs"),
        smoke_test=SmokeTest(enabled=False),
    )
    return job.at(Path.cwd())


def _places(files: list[str]) -> dict[str, str]:
    """Where each file lies on the box; two of one name are told apart by a number."""
    names = Counter(Path(file).name for file in files)
    return {
        file: f"input/{Path(file).name}" if names[Path(file).name] == 1 else f"input/{number}/{Path(file).name}"
        for number, file in enumerate(files)
    }
