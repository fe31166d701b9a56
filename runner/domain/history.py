"""What a run has told since its start, from its events: curves, evaluations, samples of the hardware, and marks on the time axis.

The events were written by the payload and by the supervisor on a box that nobody vouches for: a value of another type than the
one expected is left out, never an error, and the number of curves and marks is limited.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.domain.terminal import clean

MAX_CURVES = 512  # of one kind: names beyond are left out
MAX_MARKS = 10_000  # the newest are kept
MAX_STEP = 1 << 53
LATEST = 1e11  # epoch seconds
_NOT_A_CURVE = frozenset({"t", "type", "step", "total"})


@dataclass
class Curve:
    """One figure: ``values[i]`` at the optimizer step ``steps[i]`` and at ``times[i]`` (epoch seconds, the box's clock).

    A value is NaN where the payload had no finite number.
    """

    steps: array[int] = field(default_factory=lambda: array("q"))
    times: array[float] = field(default_factory=lambda: array("d"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self.values)

    def append(self, step: int, at: float, value: float) -> None:
        self.steps.append(step)
        self.times.append(at)
        self.values.append(value)

    def drop_from(self, step: int) -> None:
        """Removes the points at this step and behind it: a run that went back to a checkpoint does these steps again."""
        while self.steps and self.steps[-1] >= step:
            for points in (self.steps, self.times, self.values):
                points.pop()

    @property
    def last(self) -> float | None:
        """The newest value that is a number."""
        return next((value for value in reversed(self.values) if not math.isnan(value)), None)

    def thinned(self, points: int) -> Curve:
        """At most ``points`` points (at least four): of each of equally many neighbours the lowest and the highest, in their order,
        so that no peak is lost; and the first and the last.
        """
        count = len(self)
        if count <= max(points, 4):
            return self
        buckets = (max(points, 4) - 2) // 2
        chosen = [0]
        for number in range(buckets):
            low, high = 1 + number * (count - 2) // buckets, 1 + (number + 1) * (count - 2) // buckets
            chosen += sorted(_extremes(self.values, low, high))
        chosen.append(count - 1)
        thin = Curve()
        for place in chosen:
            thin.append(self.steps[place], self.times[place], self.values[place])
        return thin


def _extremes(values: array[float], low: int, high: int) -> set[int]:
    """Where the lowest and the highest value of ``values[low:high]`` are; of values that are not numbers, the first."""
    numbers = [place for place in range(low, high) if not math.isnan(values[place])]
    if not numbers:
        return {low} if low < high else set()
    return {min(numbers, key=values.__getitem__), max(numbers, key=values.__getitem__)}


Curves = dict[str, Curve]


@dataclass(frozen=True)
class Mark:
    """Something that happened at one moment. ``kind`` is ``phase``, ``checkpoint``, ``flag``, ``oom``, ``ended`` or ``resume``.

    ``text`` has no control sequences.
    """

    at: float
    step: int
    kind: str
    text: str


@dataclass
class History:
    """All that the events say so far. Built by ``add``, event by event, in the order in which they were written.

    ``training`` has a curve for each number of the ``step`` events (loss, lr, grad_norm, tokens_per_second, mfu, ms a step, memory in
    bytes, and what else a program writes), ``epochs`` for those of the ``epoch`` events, ``evaluations`` by the name of the set and
    the metric, ``gpus`` by the GPU's index (temperature in °C, power in W, utilisation in %, memory_used and memory_total in bytes),
    ``machine`` for cpu in %, and ram_used, ram_total, disk_free and disk_total in bytes.
    """

    step: int = 0
    total: int | None = None
    started: float | None = None  # the time of the first event, epoch seconds
    seen: float | None = None  # the time of the newest
    training: Curves = field(default_factory=dict)
    epochs: Curves = field(default_factory=dict)
    evaluations: dict[str, Curves] = field(default_factory=dict)
    gpus: dict[int, Curves] = field(default_factory=dict)
    machine: Curves = field(default_factory=dict)
    marks: deque[Mark] = field(default_factory=lambda: deque(maxlen=MAX_MARKS))

    def add(self, event: object) -> None:
        """Takes one event in. What is not an event with a time and a type changes nothing."""
        if not isinstance(event, dict):
            return
        at, kind = event.get("t"), event.get("type")
        at = at if type(at) is float else _number(at)
        if at is None or not 0 <= at < LATEST or not isinstance(kind, str):
            return
        self.started = at if self.started is None else self.started
        self.seen = at
        if kind == "step":
            self._add_step(at, event)
        elif kind == "eval":
            self._add_evaluation(at, event)
        elif kind == "epoch":
            self._add_epoch(at, event)
        elif kind == "hardware":
            self._add_hardware(at, event)
        elif text := _mark(kind, event):
            self.marks.append(Mark(at, _step(event.get("step"), self.step), kind, text))

    def mark(self, at: float, kind: str, text: str) -> None:
        """Notes something that no event says, such as a resume on another box."""
        self.marks.append(Mark(at, self.step, kind, clean(text, 400)))

    def _add_step(self, at: float, event: Mapping[object, object]) -> None:
        step = _step(event.get("step"), -1)
        if step < 0:
            return
        if step < self.step:  # a requeued run repeats what came after its checkpoint
            self._go_back_to(step)
        self.step = step
        total = _step(event.get("total"), -1)
        self.total = total if total >= 0 else self.total
        _append_newest(self.training, step, at, event)

    def _go_back_to(self, step: int) -> None:
        for curves in (self.training, self.epochs, *self.evaluations.values()):
            for curve in curves.values():
                curve.drop_from(step)

    def _add_evaluation(self, at: float, event: Mapping[object, object]) -> None:
        name, metrics = event.get("name"), event.get("metrics")
        if not isinstance(metrics, dict) or not isinstance(name, str):
            return
        name = clean(name, 200)
        if name in self.evaluations or len(self.evaluations) < MAX_CURVES:
            _append_newest(self.evaluations.setdefault(name, {}), _step(event.get("step"), self.step), at, metrics)

    def _add_epoch(self, at: float, event: Mapping[object, object]) -> None:
        metrics = event.get("metrics")
        step = _step(event.get("step"), self.step)
        _append_newest(self.epochs, step, at, {**event, **(metrics if isinstance(metrics, dict) else {})})

    def _add_hardware(self, at: float, event: Mapping[object, object]) -> None:
        gpus = event.get("gpus")
        for gpu in gpus if isinstance(gpus, list) else ():
            index = _step(gpu.get("index"), -1) if isinstance(gpu, dict) else -1
            if 0 <= index < MAX_CURVES:
                figures = {name: value for name, value in gpu.items() if name != "index"}
                _append(self.gpus.setdefault(index, {}), self.step, at, figures)
        ram, disk = event.get("ram"), event.get("disk")
        figures = {"cpu": event.get("cpu")}
        for name, values in (("ram", ram), ("disk", disk)):
            for each, value in values.items() if isinstance(values, dict) else ():
                figures[f"{name}_{each}"] = value
        _append(self.machine, self.step, at, figures)

    @property
    def all_evaluations(self) -> Iterator[tuple[str, str, Curve]]:
        """Name of the set, metric, curve."""
        for name, metrics in self.evaluations.items():
            for metric, curve in metrics.items():
                yield name, metric, curve


def _append_newest(curves: Curves, step: int, at: float, figures: Mapping[Any, object]) -> None:
    """Adds a point to the curve of each figure. Where the figure was told of this step before, the newest value counts: a resumed run
    evaluates its checkpoint again, and of one step a program may first tell the time and then the loss.
    """
    for name in figures:
        curve = curves.get(name)
        if curve is not None and curve.steps and curve.steps[-1] == step:
            curve.drop_from(step)
    _append(curves, step, at, figures)


def _append(curves: Curves, step: int, at: float, figures: Mapping[Any, object]) -> None:
    """Adds a point to the curve of each figure; of nearly all points of a long run the first two conditions are all that is asked."""
    for name, value in figures.items():
        curve = curves.get(name)
        if type(value) is float and curve is not None and math.isfinite(value):
            curve.append(step, at, value)
        elif name not in _NOT_A_CURVE and isinstance(name, str):
            _append_odd(curves, name, step, at, value)


def _append_odd(curves: Curves, name: str, step: int, at: float, value: object) -> None:
    """The same for a curve's first point, and for what is no float."""
    known = curves.get(name)
    number = _number(value)
    if number is None and (known is None or value is not None):
        return  # no number, and no gap in a curve
    if known is None:
        if len(curves) >= MAX_CURVES:
            return
        known = curves.setdefault(clean(name, 200), Curve())
    known.append(step, at, math.nan if number is None else number)


def _mark(kind: str, event: Mapping[object, object]) -> str:
    """What a mark says; empty for an event that is none."""
    if kind == "phase" or kind == "checkpoint":
        text = event.get("name")
    elif kind == "flag":
        text = event.get("message") or event.get("name")
    elif kind == "oom":
        text = f"out of memory: micro-batch {event.get('micro_batch_before')} → {event.get('micro_batch_after')}"
    elif kind == "ended":
        text = event.get("cause") or "ended"
    else:
        return ""
    return clean(text, 400) if isinstance(text, str) else ""


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _step(value: object, otherwise: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_STEP:
        return value
    return otherwise
