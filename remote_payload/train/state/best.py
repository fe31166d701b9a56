"""Which evaluation is the best, and where the weights that it measured are stored.

The best follows from the list of evaluations, the metric and its direction, and from nothing else: so a run that is resumed, or
that selects by another metric, never depends on an earlier choice. An evaluation before the first step is only a comparison,
and an evaluation whose metric is not a number is never the best.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from remote_payload.train.errors import InputError, TrainingError
from remote_payload.train.files import read_json_object, write_json
from remote_payload.train.folders import complete_folder, read_manifest
from remote_payload.train.model.model_facts import WeightsFacts
from remote_payload.train.run import Run
from remote_payload.train.state.progress import STOPPED, EvaluationResult, Outcome, Progress, Scored

S = TypeVar("S", bound=Scored)


def ranked(evaluations: Sequence[S], metric: str, higher_is_better: bool) -> list[S]:
    """The evaluations that a model can be chosen by, the best first; of equal ones the earlier."""
    comparable = [entry for entry in evaluations if entry["step"] > 0 and is_number(entry["metrics"].get(metric))]
    sign = -1 if higher_is_better else 1
    return sorted(comparable, key=lambda entry: (sign * entry["metrics"][metric], entry["step"]))


def is_number(value: Any) -> bool:
    """Whether a metric can be compared: NaN is neither better nor worse than any number."""
    return isinstance(value, int | float) and not math.isnan(value)


def update_best(progress: Progress, metric: str, higher_is_better: bool) -> None:
    """Sets ``best``, ``best_step`` and ``without_better`` (evaluations since then) from the evaluations so far."""
    best = next(iter(ranked(progress.evaluations, metric, higher_is_better)), None)
    progress.best_step = best["step"] if best else None
    progress.best = best["metrics"][metric] if best else None
    progress.without_better = sum(entry["step"] > (progress.best_step or 0) for entry in progress.evaluations)


@dataclass(frozen=True)
class Weights:
    """The best weights that still exist: of which evaluation, where, and a note if they are not those of the best evaluation."""

    entry: EvaluationResult
    place: Path | None  # a checkpoint or models/best; None: the model as it is in memory
    note: str | None = None

    @property
    def step(self) -> int:
        return int(self.entry["step"])


def best_weights(run: Run, progress: Progress, memory: bool = True) -> Weights | None:
    """The weights of the best evaluation whose weights still exist; None when there are none. Every rank must call it.

    ``memory``: the model in memory may be taken, if its step was evaluated.
    """
    found = run.world.broadcast(_find(run, progress, memory) if run.world.main else None)
    if found is None:
        return None
    entry, place, note = found
    return Weights(entry, Path(place) if place else None, note)


def _find(run: Run, progress: Progress, memory: bool) -> tuple[EvaluationResult, str | None, str | None] | None:
    metric = run.settings.evaluation.metric
    order = ranked(progress.evaluations, metric, run.higher_is_better)
    for entry in order:
        if memory and entry["step"] == progress.step:
            return entry, None, _note(entry, order[0], metric)
        for place in (run.checkpoints / f"step-{entry['step']:06d}", run.best):
            if holds(place, entry):
                return entry, str(place), _note(entry, order[0], metric)
    last = next((entry for entry in progress.evaluations if entry["step"] == progress.step), None)
    if not memory or last is None:
        return None
    why = f"{metric} was never a number"
    if order:
        why = f"The best evaluation was at step {order[0]['step']}, but no weights of any that can be compared could be kept"
    return last, None, f"{why}, so these are the last weights (step {progress.step})."


def holds(folder: Path, entry: EvaluationResult) -> bool:
    """Whether a complete folder holds the weights that this evaluation measured, by its manifest and ``metrics.json``."""
    manifest = read_manifest(folder, hashes=True)
    if manifest is None:
        return False
    found = read_metrics(folder)
    if "step" in manifest:  # a checkpoint; one that was saved before its evaluation has no metrics
        found = {"step": manifest["step"], **(manifest.get("metrics") or entry["metrics"])}
    wanted = {"step": entry["step"], **entry["metrics"]}
    return all(_equal(found.get(name), value) for name, value in wanted.items())


def _equal(one: Any, other: Any) -> bool:
    """Whether two figures are the same; NaN, which a metric beside the deciding one may be, is the same as NaN."""
    return bool(one == other or (one != one and other != other))


@contextmanager
def model_folder(run: Run, outcome: Outcome | None = None) -> Iterator[Path]:
    """A folder to fill; it then becomes ``models/best``. On a full disk the earlier model stays, and training continues.

    After training (``outcome``) a full disk raises TrainingError: no later step can write the model.
    """
    try:
        with complete_folder(run.best) as folder:
            yield folder
    except OSError as error:
        if outcome:
            raise TrainingError(
                f"models/best could not be written: {error}. The weights are in checkpoints/: make room on the box, then gpurun resume"
            ) from error
        run.telemetry.flag("disk_full", f"models/best could not be written, what was there before stays: {error}")


def write_metrics(folder: Path, weights: Weights, metrics: dict[str, float]) -> None:
    """``metrics.json`` of a model's folder: step, epoch and metrics of the weights in it, and their note where there is one."""
    note = {"note": weights.note} if weights.note else {}
    write_json(folder / "metrics.json", {"epoch": weights.entry["epoch"], "step": weights.step, **metrics, **note})


def read_metrics(folder: Path) -> dict[str, Any]:
    """``metrics.json`` of a model's folder; empty when there is none that can be read."""
    try:
        return read_json_object(folder / "metrics.json")
    except InputError:
        return {}


def remark(weights: Weights, outcome: Outcome | None) -> str | None:
    """A note for the model's card and gpurun.json: it is not of the best evaluation, or training was stopped."""
    stopped = outcome and outcome.reason == STOPPED
    ended = f"Training was stopped at step {outcome.progress.step} of {outcome.total}." if outcome and stopped else None
    return " ".join(filter(None, [weights.note, ended])) or None


def weights_facts(weights: Weights, outcome: Outcome | None) -> WeightsFacts:
    """The weights in ``gpurun.json``: their step, and the remark if there is one."""
    note = remark(weights, outcome)
    return {"step": weights.step, **({"note": note} if note else {})}


def _note(entry: EvaluationResult, best: EvaluationResult, metric: str) -> str | None:
    if entry is best:
        return None
    return (
        f"The best evaluation was at step {best['step']} ({metric} {best['metrics'][metric]:.4f}), but its weights could not be "
        f"kept. These are the weights of step {entry['step']} ({metric} {entry['metrics'][metric]:.4f}), the best that are left."
    )
