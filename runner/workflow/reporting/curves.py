"""The curves of a history as charts: which figures stand in one chart, with which title and unit. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from runner.domain.history import Curve, History
from runner.report.blocks import Chart, Moment, Series

GIB = float(1 << 30)
POINTS = 60_000  # of all curves of a page together: about 2 MB
MOST, FEWEST = 1500, 40  # of one curve
MOMENTS = 400
ORDINARY = ("checkpoint", "phase")  # marks that come in hundreds: left out before the others


@dataclass(frozen=True)
class Figure:
    """What a chart shows; its values are those of the events times ``factor``."""

    title: str
    unit: str = ""
    axis: Literal["step", "time"] = "step"
    factor: float = 1.0


LOSS = Figure("loss")
TRAINING = {
    "lr": Figure("learning rate"),
    "grad_norm": Figure("gradient norm"),
    "tokens_per_second": Figure("speed", "tokens/s"),
    "mfu": Figure("MFU", "%", factor=100),
    "ms": Figure("time of a step", "ms"),
    "memory": Figure("GPU memory of the program, at most", "GiB", factor=1 / GIB),
}
GPU = {
    "utilisation": Figure("GPU utilisation", "%", "time"),
    "memory_used": Figure("GPU memory", "GiB", "time", 1 / GIB),
    "temperature": Figure("GPU temperature", "°C", "time"),
    "power": Figure("GPU power", "W", "time"),
}
MACHINE = {
    "cpu": Figure("processors of the box", "%", "time"),
    "ram_used": Figure("memory of the box", "GiB", "time", 1 / GIB),
    "disk_free": Figure("free disk", "GB", "time", 1e-9),
}


@dataclass(frozen=True)
class Line:
    """One curve of a figure; ``label`` tells it from the others of the same figure."""

    figure: Figure
    label: str
    curve: Curve


def training_lines(history: History) -> Iterator[Line]:
    """What the program told: the loss first, then what evaluations measured, then speed and the rest."""
    training = history.training
    if "loss" in training:
        yield Line(LOSS, "training", training["loss"])
    measured = {metric for _, metric, _ in history.all_evaluations} | {"loss"}
    for name, curve in history.epochs.items():
        if name in measured:
            yield Line(Figure(name), "training, mean of an epoch", curve)
    for of_set, metric, curve in history.all_evaluations:
        yield Line(Figure(metric), of_set, curve)
    for name in (*TRAINING, *(name for name in training if name not in TRAINING)):
        if name in training and name not in ("loss", "epoch"):
            yield Line(TRAINING.get(name, Figure(name)), "training", training[name])


def hardware_lines(history: History) -> Iterator[Line]:
    """What the box measured of itself."""
    for name, figure in GPU.items():
        for index, curves in sorted(history.gpus.items()):
            if name in curves:
                yield Line(figure, f"GPU {index}", curves[name])
    for name, figure in MACHINE.items():
        if name in history.machine:
            yield Line(figure, "box", history.machine[name])


def points_each(curves: int) -> int:
    """How many points each of so many curves may have."""
    return max(FEWEST, min(MOST, POINTS // max(curves, 1)))


def as_charts(lines: Sequence[Line], started: float, points: int) -> list[Chart]:
    """A chart for each figure, with all its lines, each in its colour."""
    found: dict[Figure, list[Series]] = {}
    for line in lines:
        others = found.setdefault(line.figure, [])
        others.append(series(line, started, points, colour=len(others)))
    return [Chart(figure.title, figure.unit, lines, figure.axis) for figure, lines in found.items()]


def series(line: Line, started: float, points: int, *, label: str = "", colour: int = 0, faint: bool = False) -> Series:
    """A line with at most so many points; ``label`` instead of its own."""
    thin = line.curve.thinned(points)
    return Series(
        label or line.label,
        thin.steps,
        [at - started for at in thin.times],
        [line.figure.factor * value for value in thin.values],
        colour,
        faint=faint,
    )


def moments(history: History) -> list[Moment]:
    """What happened, the oldest first; of too many the ordinary ones are left out, then the oldest."""
    start = history.started or 0.0
    kept = list(history.marks)
    if len(kept) > MOMENTS:
        rare = [mark for mark in kept if mark.kind not in ORDINARY][-MOMENTS:]
        common = [mark for mark in kept if mark.kind in ORDINARY][len(rare) - MOMENTS :] if len(rare) < MOMENTS else []
        chosen = {id(mark) for mark in (*rare, *common)}
        kept = [mark for mark in kept if id(mark) in chosen]
    return [Moment(mark.at - start, mark.step, mark.kind, mark.text) for mark in kept]
