"""The history of a run: one JSON document with every evaluation, and a copy of the log's lines."""

from __future__ import annotations

from typing import TypedDict

from remote_payload.train.data.facts import DataFile
from remote_payload.train.download import BaseModel
from remote_payload.train.errors import InputError
from remote_payload.train.evaluation.evaluation_sets import SetMetrics
from remote_payload.train.files import read_json_object, write_json
from remote_payload.train.run import Run


class SetEvaluation(TypedDict):
    """An evaluation of all sets."""

    step: int
    epoch: float
    sets: SetMetrics


class ExperimentLog:
    """``reports/experiment_log.json`` (settings, data, every evaluation of every set) and ``reports/experiment.log``."""

    def __init__(self, run: Run, dataset: DataFile, base: BaseModel) -> None:
        self.run, self.path = run, run.reports / "experiment_log.json"
        job = {"run": run.id, "job": run.job.get("name"), "settings": run.job.get("settings")}
        self.head = {**job, "dataset": dataset.as_dict(), "base": base.as_dict()}
        run.telemetry.copy_to(run.reports / "experiment.log")

    def record(self, step: int, epoch: float, results: SetMetrics) -> None:
        """Adds an evaluation. Later ones are removed: they are of a run that was interrupted and resumed from an earlier step."""
        if not self.run.world.main:
            return
        earlier = [entry for entry in self._evaluations() if entry["step"] < step]
        latest: SetEvaluation = {"step": step, "epoch": epoch, "sets": results}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {**self.head, "evaluations": [*earlier, latest]})
        for name, result in results.items():
            self.run.telemetry.event("eval", name=name, step=step, metrics=result)
            self.run.telemetry.scalars(f"sets/{name}", result, step)

    def _evaluations(self) -> list[SetEvaluation]:
        try:
            return list(read_json_object(self.path)["evaluations"])
        except (InputError, KeyError):
            return []
