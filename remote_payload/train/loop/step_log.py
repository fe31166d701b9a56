"""What each step and each epoch was like, for events, log and curves: loss, speed, utilisation, memory; and who watches over it."""

from __future__ import annotations

import time
from itertools import zip_longest

from remote_payload.train.loop.flops import mfu, peak_memory
from remote_payload.train.loop.step import ScoredTask, StepFacts, Task
from remote_payload.train.loop.watchdog import StallDetector, Watchdog
from remote_payload.train.run import Run
from remote_payload.train.state.progress import EpochFigures, OpenEpoch, Progress


class StepLog:
    """Reports every step and every epoch once, and keeps the losses of this process's steps."""

    def __init__(self, run: Run, task: Task, progress: Progress, total: int, flops_per_token: float) -> None:
        self.run, self.task, self.progress, self.total, self.flops_per_token = (
            run,
            task,
            progress,
            total,
            flops_per_token,
        )
        self.watchdog, self.stall_detector = Watchdog(run.telemetry), StallDetector()
        self.losses: list[float] = []

    def report(self, step: StepFacts, samples: int, epoch: float, lr: float, seconds: float) -> None:
        """A ``step`` event, its line in the log, its curves, and the flags that it gives reason for."""
        self.losses.append(step.loss)
        self.count(step, samples, seconds)
        speed = step.tokens / seconds
        facts = {
            "step": self.progress.step,
            "total": self.total,
            "epoch": epoch,
            "loss": step.loss,
            "lr": lr,
            "grad_norm": step.grad_norm,
            "tokens_per_second": speed,
            "mfu": self.utilisation(speed),
            "ms": seconds * 1000,
            "memory": peak_memory(self.run.world.device),
        }
        self.run.telemetry.step(facts)
        self.watchdog.step(facts)
        self.stall_detector.stepped(time.monotonic())

    def count(self, step: StepFacts, samples: int, seconds: float) -> None:
        """Adds the step to the figures of the whole run and to those of its epoch."""
        progress, epoch = self.progress, self.progress.open_epoch
        progress.timed_seconds += seconds
        progress.timed_tokens += step.tokens
        if progress.timed_samples is not None:
            progress.timed_samples += samples
        progress.last_loss = step.loss
        if progress.step == 1:
            progress.first_loss = step.loss
        epoch.steps += 1
        epoch.samples += samples
        epoch.tokens += step.tokens
        epoch.seconds += seconds
        epoch.loss += step.loss * step.count
        epoch.count += step.count
        epoch.scores = [sum(pair) for pair in zip_longest(epoch.scores, step.scores, fillvalue=0.0)]

    def end_epoch(self, epoch: float, seconds: float) -> None:
        """An epoch is over after ``epoch`` epochs and ``seconds`` of training, or training is in the middle of one: its figures."""
        over = self.progress.open_epoch
        if not over.steps:
            return
        more = self.task.figures(over.scores) if isinstance(self.task, ScoredTask) else {}
        figures: EpochFigures = {
            "epoch": epoch,
            "step": self.progress.step,
            "steps": over.steps,
            "samples": over.samples,
            "tokens": over.tokens,
            "seconds": round(seconds - over.began, 3),
            "samples_per_second": over.samples / over.seconds,
            "tokens_per_second": over.tokens / over.seconds,
            "metrics": {"loss": over.loss / max(over.count, 1e-12), **more},
        }
        self.progress.epochs.append(figures)
        self.progress.open_epoch = OpenEpoch(began=seconds)
        self.run.telemetry.event("epoch", **figures)
        speed = {"seconds": figures["seconds"], "samples_per_second": figures["samples_per_second"]}
        self.run.telemetry.scalars("epoch", {**figures["metrics"], **speed}, figures["step"])
        self.run.log(epoch_line(figures))

    def utilisation(self, tokens_per_second: float) -> float | None:
        """MFU at this speed; None where it is not known."""
        return mfu(self.flops_per_token * tokens_per_second, self.run.world)


def epoch_line(figures: EpochFigures) -> str:
    """``epoch 2.00  17.3 s  534 examples  61.7 examples/s  loss 0.0412  accuracy 0.9870``"""
    parts = [
        f"epoch {figures['epoch']:.2f}",
        f"{figures['seconds']:.1f} s",
        f"{figures['samples']:,} examples",
        f"{figures['samples_per_second']:,.1f} examples/s",
        *(f"{name} {value:.4f}" for name, value in figures["metrics"].items()),
    ]
    return "  ".join(parts)
