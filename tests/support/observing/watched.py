"""Runs as ``gpurun watch`` draws them, the same for the same seed. Run as a program, it draws so many on this terminal."""

from __future__ import annotations

import math
import random
import sys
from typing import Any

from runner.cli.watching.keys import pressed
from runner.cli.watching.picture import Picture
from runner.domain.answers.status import Status
from runner.domain.history import Curve, History
from runner.domain.job import Job
from runner.domain.run import Run
from runner.workflow.observing.status import Seen

NOW = 1_767_362_430.0  # 2026-01-02 14:00:30 UTC
GIB = 1 << 30


def history(seed: int, steps: int, gpus: int, name: str = "validation") -> History:
    """A run that learns, with an evaluation every tenth part and a checkpoint beside it."""
    dice, told = random.Random(seed), History()
    told.add({"t": NOW - 2 * steps, "type": "phase", "name": "train"})
    for step in range(1, steps + 1):
        at, loss = NOW - 2 * (steps - step), 4 * math.exp(-5 * step / steps) + 0.5 + 0.3 * dice.random()
        told.add({"t": at, "type": "step", **figures(step, 2 * steps, loss, dice)})
        if step % max(1, steps // 10) == 0:
            scores = {"loss": loss + 0.1, "accuracy": 1 - loss / 6}
            told.add({"t": at, "type": "eval", "name": name, "step": step, "metrics": scores})
            told.add({"t": at, "type": "checkpoint", "name": f"step-{step:06}", "step": step})
        if step % max(1, steps // 50) == 0:
            told.add({"t": at, "type": "hardware", **hardware(gpus, dice)})
    told.add({"t": NOW, "type": "oom", "micro_batch_before": 16, "micro_batch_after": 8})
    return told


def figures(step: int, total: int, loss: float, dice: random.Random) -> dict[str, Any]:
    rate = 3e-4 * min(1.0, 10 * step / total, 2 * (1 - step / total))
    speed = 1900 + 60 * dice.random()
    return {
        "step": step, "total": total, "epoch": step / total * 3, "loss": loss, "lr": rate, "grad_norm": 0.5 + dice.random(),
        "tokens_per_second": speed, "mfu": speed / 4700, "ms": 1e6 / speed, "memory": 61 * GIB,
    }  # fmt: skip


def hardware(gpus: int, dice: random.Random) -> dict[str, Any]:
    cards = [
        {
            "index": index, "temperature": 60 + dice.randrange(9), "power": 380 + 40 * dice.random(),
            "utilisation": 90 + dice.randrange(10), "memory_used": 61 * GIB, "memory_total": 80 * GIB,
        }
        for index in range(gpus)
    ]  # fmt: skip
    return {
        "gpus": cards, "cpu": 34.2, "cpus": 16, "ram": {"used": 12 * GIB, "total": 64 * GIB},
        "disk": {"free": 69.1e9, "total": 270.6e9},
    }  # fmt: skip


def picture(seed: int, steps: int = 400, gpus: int = 2, host: str = "root@box", **fields: Any) -> Picture:
    """A run that is half way through, seen at NOW."""
    dice, told = random.Random(seed), history(seed, steps, gpus)
    run_id = f"legal-20260102-13{seed % 60:02}00-{seed % 65536:04x}"
    last = figures(steps, 2 * steps, told.training["loss"].last or 0.0, dice)
    progress: dict[str, dict[str, object]] = {"step": last, "hardware": hardware(gpus, dice)}
    status = Status(
        run_id, "running", gpus=tuple(range(gpus)), started_at=NOW - 2 * steps, now=NOW, progress=progress, log_size=9
    )
    run = Run(run_id, Job("legal", price_per_hour=2.2), host, NOW, launched=True, status=status, status_at=NOW)
    log = [
        f"step {step}/{2 * steps}  loss 0.{step % 10}  1,9{step % 90 + 10} tok/s" for step in range(steps - 20, steps)
    ]
    return Picture(Seen(run, status, NOW), told, log, (f"step-{steps // 2:06}",), **fields)


def long_curve(points: int) -> Curve:
    """A curve of so many points, made without a loop of Python over them."""
    curve = Curve()
    curve.steps.extend(range(points))
    curve.times.extend([NOW] * points)
    curve.values.extend([1.5] * (points - 1) + [7.0])
    return curve


def main() -> None:
    from runner.cli.watching.display import Display

    pictures = [picture(seed) for seed in range(1, int(sys.argv[1]) + 1)]
    with Display() as display:
        while pressed(0.05) != "q":
            display.draw(pictures, "q leaves, the runs go on")


if __name__ == "__main__":
    main()
