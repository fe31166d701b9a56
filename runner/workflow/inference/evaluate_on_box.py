"""``gpurun evaluate --host``: the same evaluation as a run on a box, followed to its end and brought home."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from runner.domain.job import DataFrom, Hub, Job, Resources, SmokeTest
from runner.domain.progress import Reporter
from runner.local_model.base import BaseModel, base_of_job, required_base
from runner.local_model.model_folder import read_model_folder
from runner.workflow.follow_up import Display, first_error, follow_up
from runner.workflow.inference.evaluate import Asked, Outcome, begin, finish, read_results
from runner.workflow.inference.evaluation_settings import evaluation_settings
from runner.workflow.inference.targets import Meant, meaning_of, path_in_outputs
from runner.workflow.submit import Options, submit

REPORTS = "reports"


@dataclass
class Sent:
    """What the job names: models as the box finds them, the data that goes there, and models of the Hub that the box downloads."""

    models: list[Mapping[str, object]] = field(default_factory=list)
    data: list[DataFrom] = field(default_factory=list)
    hub: list[str] = field(default_factory=list)

    def add(self, meant: Meant) -> None:
        """One more model. Raises SmokeTestFailed for a folder that is no model, or whose base is not on this machine."""
        number = len(self.models) + 1
        base: BaseModel | None = None
        if meant.repository:
            self.hub.append(meant.repository)
            folder = meant.repository
        else:
            folder = f"models/{number}"
            self.data.append(DataFrom(_source(meant), folder))
            base = _base_of(meant)
        place: str | None = None
        if base is not None and base.folder is not None:
            place = f"bases/{number}"
            self.data.append(DataFrom(str(base.folder), place))
        elif base is not None:
            place = base.id
            self.hub.append(base.id)
        commit = base.revision if base else None
        self.models.append(
            {"name": meant.named, "folder": folder, "revision": meant.revision, "base": place, "base_revision": commit}
        )


def evaluate_on(host: str, asked: Asked, report: Reporter, display: Display) -> Outcome:
    """Measures the targets on the box, brings the results home, and compares. Raises what ``submit`` and ``fetch`` raise, and RunFailed.

    What a run of that box wrote is not sent again.
    """
    earlier, named, folder = begin(asked)
    job = job_of(asked, [meaning_of(each) for each in named])
    (run,) = submit([(job, None)], host, report, Options())
    followed = follow_up([run], report, display)
    if error := first_error(followed):
        raise error
    shutil.copytree(followed[0].run.outputs_here / REPORTS, folder, dirs_exist_ok=True)
    return finish(read_results(folder), asked, earlier)


def job_of(asked: Asked, targets: Sequence[Meant]) -> Job:
    """The job of the evaluation. The job of the first run among the targets says how its data is read."""
    sent = Sent()
    for meant in targets:
        sent.add(meant)
    run = next((meant.run for meant in targets if meant.run), None)
    settings = evaluation_settings(
        sent.models, asked.data, run,
        overrides=asked.overrides, grid=asked.grid, samples=asked.samples, device=asked.device, base=asked.base,
    )  # fmt: skip
    place = f"data/{asked.data.absolute().name}"
    data = [DataFrom(settings.data, place), *sent.data]
    if settings.schema:
        data.append(DataFrom(settings.schema, "schema/schema.json"))
        settings = replace(settings, schema="schema/schema.json")
    stem = re.sub(r"[^a-z0-9]+", "-", asked.data.stem.lower()).strip("-")[:30]
    job = Job(
        name=f"evaluate-{stem}" if stem else "evaluate",
        recipe="evaluate",
        settings=asdict(replace(settings, data=place)),
        data=tuple(data),
        hub=Hub(models=tuple(dict.fromkeys(sent.hub))),
        resources=Resources(gpus=0 if settings.device == "cpu" else 1),
        outputs=(REPORTS, "logs"),
        smoke_test=SmokeTest(enabled=False),
    )
    return job.at(Path.cwd())


def _source(meant: Meant) -> str:
    """Where the model is sent from: what a run wrote is taken on its own box."""
    if meant.folder or meant.run is None:
        return str(meant.folder)
    return f"run:{meant.run.run_id}/{path_in_outputs(meant)}"


def _base_of(meant: Meant) -> BaseModel | None:
    if meant.folder:
        return required_base(read_model_folder(meant.folder), meant.run.job if meant.run else None)
    return base_of_job(meant.run.job) if meant.run else None
