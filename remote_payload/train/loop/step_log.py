"""What each step was like, for events, log and curves: loss, speed, utilisation, memory; and who watches over it."""

from __future__ import annotations

import time

from remote_payload.train.loop.flops import mfu, peak_memory
from remote_payload.train.loop.step import StepFacts
from remote_payload.train.loop.watchdog import StallDetector, Watchdog
from remote_payload.train.run import Run
from remote_payload.train.state.progress import Progress


class StepLog:
    """Reports every step once, and keeps the losses of this process's steps."""

    def __init__(self, run: Run, progress: Progress, total: int, flops_per_token: float) -> None:
        self.run, self.progress, self.total, self.flops_per_token = run, progress, total, flops_per_token
        self.watchdog, self.stall_detector = Watchdog(run.telemetry), StallDetector()
        self.losses: list[float] = []

    def report(self, step: StepFacts, epoch: float, lr: float, seconds: float) -> None:
        """A ``step`` event, its line in the log, its curves, and the flags that it gives reason for."""
        self.losses.append(step.loss)
        self.progress.timed_seconds += seconds
        self.progress.timed_tokens += step.tokens
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

    def utilisation(self, tokens_per_second: float) -> float | None:
        """MFU at this speed; None where it is not known."""
        return mfu(self.flops_per_token * tokens_per_second, self.run.world)
