"""The history of a run as its author reads it afterwards: one JSON document, and the log's lines in a file."""

from __future__ import annotations

import json
from typing import Any

from remote_payload.train.evaluation.evaluation_sets import Results
from remote_payload.train.files import write_json
from remote_payload.train.run import Run


class ExperimentLog:
    """``reports/experiment_log.json`` (settings, data, every evaluation of every set) and ``reports/experiment.log``."""

    def __init__(self, run: Run, facts: dict[str, Any]) -> None:
        self.run, self.path = run, run.reports / "experiment_log.json"
        self.head = {"run": run.id, "job": run.job.get("name"), "settings": run.job.get("settings"), **facts}
        run.telemetry.copy_to(run.reports / "experiment.log")

    def record(self, step: int, epoch: float, results: Results) -> None:
        """Adds an evaluation; later ones, of a run that was interrupted and resumed before them, go."""
        if not self.run.world.main:
            return
        earlier = [entry for entry in self._evaluations() if entry["step"] < step]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {**self.head, "evaluations": [*earlier, {"step": step, "epoch": epoch, "sets": results}]})
        for name, result in results.items():
            self.run.telemetry.scalars(f"sets/{name}", result, step)

    def _evaluations(self) -> list[dict[str, Any]]:
        try:
            earlier: list[dict[str, Any]] = json.loads(self.path.read_text(encoding="utf-8"))["evaluations"]
            return earlier
        except (OSError, ValueError, KeyError):
            return []
