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
from runner.domain.answers.reading import Impossible
from runner.domain.errors import ArtifactError, UserError
from runner.domain.job import DataFrom, Hub, Job, Resources, SmokeTest
from runner.domain.progress import Reporter
from runner.local_model.lines import read_predicted
from runner.workflow.follow_up import Display, first_error, follow_up
from runner.workflow.inference.evaluate_on_box import Sent
from runner.workflow.inference.predict import Prediction, answering, check_output
from runner.workflow.inference.targets import Meant, meaning_of
from runner.workflow.submit import Options, submit

SUMMARY = "predicted.json"


def predict_on(
    host: str, word: str, settings: PredictSettings, told: Mapping[str, object], report: Reporter, display: Display, *,
    device: str, gpus: int,
) -> Prediction:  # fmt: skip
    """Predicts the files on the box with ``gpus`` GPUs, and brings the output here. Raises what ``submit`` and ``fetch`` raise, and
    RunFailed."""
    check_output(settings)
    meant = meaning_of(word)
    settings = replace(settings, answering=answering(meant.run, told))
    job = job_of(meant, settings, device=device, gpus=gpus)
    (run,) = submit([(job, None)], host, report, Options())
    followed = follow_up([run], report, display)
    if error := first_error(followed):
        raise error
    reports = followed[0].run.outputs_here / "reports"
    output = Path(settings.output)
    beside = output.with_name(f".{output.name}.coming")
    shutil.copyfile(reports / output.name, beside)
    os.rename(beside, output)
    try:
        said = json.loads((reports / SUMMARY).read_text("utf-8"))
        return Prediction(word, str(said["kind"]), str(said["dtype"]), settings, read_predicted(said))
    except (OSError, ValueError, KeyError, TypeError, Impossible) as error:
        raise ArtifactError(f"{reports / SUMMARY}: {error}", meaning=f"{output} is here and complete.") from None


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
        outputs=("reports", "logs"),
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
