"""The table of ``gpurun evaluate`` for a model's card, and its figures for the Hub's metadata."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote_payload.publish.problem import PublishProblem
from remote_payload.publish.scrub import Scrubber

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

SUMMARY = "evaluation.json"


@dataclass(frozen=True)
class Evaluated:
    """``data`` is the name of what was measured on; ``columns`` has each model's metrics, ``own`` those of the published one."""

    data: str
    examples: int
    columns: dict[str, dict[str, float]]
    own: dict[str, float]

    def section(self) -> str:
        """Markdown: a row a metric, a column a model."""
        rows = list(dict.fromkeys(name for metrics in self.columns.values() for name in metrics))
        lines = [_row(["metric", *self.columns]), _row(["---"] * (len(self.columns) + 1))]
        lines += [_row([name, *(_number(each.get(name)) for each in self.columns.values())]) for name in rows]
        table = "\n".join(lines)
        return f"## Evaluation\n\nOn `{self.data}`, {self.examples:,} examples:\n\n{table}\n"

    def results(self, task: str) -> list[EvalResult]:
        """The figures of the published model as the Hub reads them, without those of the machine that measured."""
        from huggingface_hub import EvalResult

        # The client makes one of results whose data differ in their names alone, so the name is the configuration too.
        return [
            EvalResult(
                task_type=task, dataset_type="custom", dataset_name=self.data, dataset_config=self.data,
                metric_type=name, metric_name=name, metric_value=value,
            )
            for name, value in self.own.items()
            if math.isfinite(value) and not name.startswith(("latency/", "memory/"))
        ]  # fmt: skip


def read_evaluation(folder: Path, names: Sequence[str], scrubber: Scrubber) -> Evaluated:
    """The evaluation in ``folder``. ``names`` are what the published model may be called there; of one model alone it is that.

    Raises PublishProblem for a folder without one, or for one in which the model cannot be told from others.
    """
    try:
        found = scrubber.value(json.loads((folder / SUMMARY).read_text("utf-8")))
        columns: list[dict[str, Any]] = found["columns"]
        tables = {
            str(each["name"]): {str(name): float(value) for name, value in each["metrics"].items()} for each in columns
        }
        models = list(dict.fromkeys(str(each["model"]) for each in columns if not each["base"]))
        data, examples = str(found["data"]), int(found["examples"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise PublishProblem(
            f"there is no readable {SUMMARY} in {folder}", hint="Name a folder that gpurun evaluate wrote."
        ) from None
    known = {str(scrubber.value(name)) for name in names}
    mine = [name for name in models if name in known] or models
    if len(mine) != 1:
        raise PublishProblem(
            f"the evaluation in {folder} measured {', '.join(models)}: which of them is published cannot be told",
            hint="Evaluate the target by the same name, or it and its base alone.",
        )
    own = next(str(each["name"]) for each in columns if each["model"] == mine[0] and not each["base"])
    return Evaluated(data, examples, tables, tables[own])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4f}"
