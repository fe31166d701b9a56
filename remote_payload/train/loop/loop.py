"""The training loop: `train(run, model, task)` is everything between a built model and a trained one.

A recipe brings a *task*: an object that knows its data and its loss. The loop knows steps, memory, checkpoints and when to stop.
One optimizer step is always ``settings.batch.size`` examples. They go through the devices in micro-batches, and the gradient is
that of (sum of all losses) / (sum of all counts) over every micro-batch of every rank: the same for any micro-batch and any
number of GPUs.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from remote_payload.train.errors import InputError, Stopped, TrainingError
from remote_payload.train.loop.fitting import FittingSteps
from remote_payload.train.loop.flops import peak_memory
from remote_payload.train.loop.loss_check import check_losses
from remote_payload.train.loop.resuming import resume
from remote_payload.train.loop.schedule import due, rate
from remote_payload.train.loop.step import StepFacts, Stepper, Task
from remote_payload.train.loop.step_log import StepLog
from remote_payload.train.loop.watchdog import watching
from remote_payload.train.run import Run
from remote_payload.train.signals import BrokenOff, Requests
from remote_payload.train.state import rng
from remote_payload.train.state.best import update_best
from remote_payload.train.state.grace import Clock, Grace
from remote_payload.train.state.progress import EARLY, FINISHED, STOPPED, Outcome, Progress
from remote_payload.train.state.saving import Saver

EvaluationCallback = Callable[[dict[str, float], Progress], None]  # called with the metrics


@dataclass(frozen=True)
class Callbacks:
    """What a recipe adds to training; see ``train``."""

    on_best: EvaluationCallback | None = None
    on_evaluation: EvaluationCallback | None = None
    on_stop: Callable[[Outcome, Clock], None] | None = None
    extras: Callable[[Path], None] | None = None


def train(
    run: Run, model: nn.Module, task: Task, *, flops_per_token: float = 0.0,
    on_best: EvaluationCallback | None = None, on_evaluation: EvaluationCallback | None = None,
    on_stop: Callable[[Outcome, Clock], None] | None = None, extras: Callable[[Path], None] | None = None,
) -> Outcome:  # fmt: skip
    """Trains ``model`` in place on ``task`` as ``run.settings`` say (epochs, max_steps, seed; the groups optimizer, schedule,
    batch, checkpoint, evaluation), resuming where ``run.resume`` says.

    ``flops_per_token`` are those of forward and backward, for MFU. ``on_best`` is called on every rank when an evaluation is the
    best so far, ``on_evaluation`` after each, ``on_stop`` after a stop once its checkpoint is saved; ``extras(folder)`` adds files
    to each checkpoint on the main rank.

    Raises Stopped when asked to end (a checkpoint is saved), TrainingError when it cannot continue, InputError for a checkpoint or
    metric that does not exist.
    """
    return Loop(run, model, task, flops_per_token, Callbacks(on_best, on_evaluation, on_stop, extras)).train()


class Loop:
    """One training run under way. Use ``train``."""

    def __init__(self, run: Run, model: nn.Module, task: Task, flops_per_token: float, callbacks: Callbacks) -> None:
        self.run, self.model, self.task, self.settings, self.world = run, model, task, run.settings, run.world
        self.callbacks = callbacks
        self.progress = Progress(seed=run.settings.seed, steps_per_epoch=task.steps_per_epoch)
        self.stepper = Stepper(run, model, task)
        self.fitting = FittingSteps(run, self.stepper, self.progress)
        self.total = self.settings.max_steps or math.ceil(self.settings.epochs * task.steps_per_epoch)
        self.log = StepLog(run, task, self.progress, self.total, flops_per_token)
        self.requests = Requests(Grace.of_this_run())
        self.saver = Saver(run, model, self.stepper.optimizer, self.requests.grace, callbacks.extras)
        self.stop_asked = self.save_asked = False
        self.started, self.seconds_before = time.perf_counter(), 0.0

    # The run, top to bottom.

    def train(self) -> Outcome:
        self.requests.listen()
        self.prepare()
        with self.run.phase("train"), watching(self.log.stall_detector, self.run.telemetry), self.saver.closing():
            reason = self.take_steps()
            self.log.end_epoch(self.epoch, self.seconds)
            with self.log.stall_detector.paused():
                self.saver.wait()
        self.run.log(f"{reason} at step {self.progress.step} of {self.total}")
        outcome = self.outcome(reason)
        if reason == STOPPED:
            self.end_stopped(outcome)
        return outcome

    def prepare(self) -> None:
        """Weights the same on all ranks, then the check of the loss, the micro-batch, resume, compilation."""
        self.world.replicate(self.model)
        check_losses(self.run, self.model, self.task)
        rng.seed_everything(self.settings.seed, self.world.rank)
        self.progress.micro_batch_rows = self.progress.probed = self.fitting.find()
        self.progress.hardware = self.world.hardware
        if path := resume(self.run, self.model, self.stepper.optimizer, self.task, self.progress):
            self.saver.saved_step = self.progress.step
            self.run.log(f"resumed from {path.name}: step {self.progress.step} of {self.total}")
        self.started, self.seconds_before = time.perf_counter(), self.progress.seconds
        self.saver.expect()
        self.maybe_compile()
        self.run.log(
            f"effective batch {self.settings.batch.size}, micro-batch {self.progress.micro_batch_rows} rows of full length, "
            f"{self.world.size} device(s) {self.world.device.type}, {self.total} steps of {self.task.steps_per_epoch} an epoch"
        )

    def maybe_compile(self) -> None:
        wanted = self.settings.batch.compile
        pays = self.world.device.type == "cuda" and self.task.fixed_shapes and self.total - self.progress.step >= 300
        if wanted is True or (wanted == "auto" and pays):
            self.run.log("torch.compile: on (the first steps take longer)")
            self.model.compile()
        else:
            self.run.log(
                "torch.compile: off" + (" (it pays on CUDA, with fixed shapes, from 300 steps on)" if wanted else "")
            )

    def take_steps(self) -> str:
        """Takes the remaining steps. Returns why training ended: FINISHED, EARLY or STOPPED."""
        if reason := self.before_first_step():
            return reason
        for work in self.remaining_steps():
            self.optimizer_step(work)
            self.saver.look()
            if reason := self.stop() if self.stop_asked else self.evaluate_and_save(self.save_asked):
                return reason
        return FINISHED

    def before_first_step(self) -> str | None:
        """Evaluates and saves step 0 if the settings ask for it. A resumed run first evaluates its last step, if a stop prevented that."""
        if self.progress.step:
            return self.evaluate_and_save()
        metrics = None
        if self.settings.evaluation.at_start and not self.progress.evaluated():
            metrics = self.evaluate()
            if metrics is None:
                return self.stop()
        if self.settings.checkpoint.at_start:
            self.save(metrics)
        return None

    def remaining_steps(self) -> Iterator[Any]:
        """The steps from the data position on; the position moves before a step is handed out."""
        progress = self.progress
        while progress.step < self.total:
            for work in self.task.steps(progress.epoch, progress.step_in_epoch):
                progress.step_in_epoch += 1
                progress.step += 1
                yield work
                if progress.step >= self.total:
                    return
            self.log.end_epoch(self.epoch, self.seconds)
            progress.epoch += 1
            progress.step_in_epoch = 0

    def optimizer_step(self, work: Any) -> None:
        """Takes one step and reports it. Raises TrainingError when its loss or gradient is not finite."""
        started = time.perf_counter()
        lr = self.settings.optimizer.learning_rate * rate(self.settings.schedule, self.progress.step - 1, self.total)
        facts = self.fitting.step(work, lr, self.requests)
        if not facts.finite:
            self.fail_not_finite(facts)
        self.progress.tokens += facts.tokens
        self.stop_asked, self.save_asked = facts.stop_asked, facts.save_asked
        if facts.save_asked:  # a later request is noticed after the next step
            self.requests.save = False
        samples = len(work) if isinstance(work, list) else self.settings.batch.size
        self.log.report(facts, samples, self.epoch, lr, time.perf_counter() - started)

    # Between steps.

    def evaluate_and_save(self, save_asked: bool = False) -> str | None:
        """Evaluates and saves if that is due at this step and has not been done. Returns why training ends here; None: it continues."""
        settings, progress, per_epoch = self.settings, self.progress, self.task.steps_per_epoch
        evaluation, checkpoint, last = settings.evaluation, settings.checkpoint, progress.step >= self.total
        metrics, better = None, False
        evaluate_now = last or due(progress.step, evaluation.every_steps, evaluation.every_epochs, per_epoch)
        if evaluate_now and not progress.evaluated():
            metrics = self.evaluate()
            if metrics is None:
                return self.stop()
            better = self.keep_if_best(metrics)
        early = bool(evaluation.patience) and progress.without_better >= evaluation.patience and not last
        due_now = due(progress.step, checkpoint.every_steps, checkpoint.every_epochs, per_epoch)
        if last or early or better or due_now or save_asked:
            self.save(metrics)
        if metrics is not None and not last and self.world.any(bool(self.requests.stop)):
            return self.stop()  # it was asked for while the ranks evaluated
        return EARLY if early else None

    def stop(self) -> str:
        """Saves a checkpoint first: whoever asked may not wait for more."""
        self.save(None)
        return STOPPED

    def evaluate(self) -> dict[str, float] | None:
        """The task's metrics now; training's random numbers are not touched. None when a stop is asked for meanwhile: a resumed run
        evaluates this step then. Several ranks evaluate to the end, since they could not leave it at the same place.
        """
        self.model.eval()
        started = time.perf_counter()
        try:
            with (
                rng.preserved(),
                self.log.stall_detector.paused(),
                torch.no_grad(),
                self.requests.breaking(self.world.size == 1),
            ):
                found = self.task.evaluate(self.model, self.progress.micro_batch_rows)
                metrics: dict[str, float] = self.world.broadcast(found)
        except BrokenOff:
            self.run.log(f"the evaluation at step {self.progress.step} is left for the resumed run")
            return None
        seconds = round(time.perf_counter() - started, 3)
        self.progress.evaluations.append(
            {"step": self.progress.step, "epoch": self.epoch, "seconds": seconds, "metrics": metrics}
        )
        if self.callbacks.on_evaluation:
            self.callbacks.on_evaluation(metrics, self.progress)
        # After what the recipe reports of single sets: the last event is the whole's, which ``gpurun status`` shows.
        self.run.telemetry.evaluation("validation", self.progress.step, metrics)
        return metrics

    def keep_if_best(self, metrics: dict[str, float]) -> bool:
        """Whether this is the best model so far by ``evaluation.metric``; if so the recipe keeps it."""
        metric, progress = self.settings.evaluation.metric, self.progress
        if metric not in metrics:
            raise InputError(f"settings.evaluation.metric: there is no {metric}; there are {', '.join(metrics)}")
        update_best(progress, metric, self.run.higher_is_better)
        if progress.best_step != progress.step:
            return False
        self.run.log(f"best {metric} so far: {progress.best:.4f}")
        if self.callbacks.on_best:
            self.callbacks.on_best(metrics, progress)
        return True

    def save(self, metrics: dict[str, float] | None) -> None:
        """Begins a checkpoint of this step, unless there is one with the same metrics. On a full disk training continues without it."""
        with self.log.stall_detector.paused():
            self.saver.wait()
            if self.saver.saved_step == self.progress.step and metrics is None:
                return
            self.progress.seconds = self.seconds
            self.saver.save(self.progress, metrics or {})

    def end_stopped(self, outcome: Outcome) -> NoReturn:
        """Lets the recipe write its results in the time before the process is killed, then raises Stopped."""
        step = self.progress.step
        if self.callbacks.on_stop:
            try:
                self.callbacks.on_stop(outcome, self.requests.clock())
            except Exception as error:  # the checkpoint is what counts, and it is there
                self.run.telemetry.flag(
                    "unfinished", f"not all was written after the stop: {type(error).__name__}: {error}"
                )
        saved = "checkpoint saved" if self.saver.saved_step == step else "no checkpoint of it could be saved"
        raise Stopped(self.requests.stop or signal.SIGTERM, f"stopped at step {step}, {saved}")

    def fail_not_finite(self, facts: StepFacts) -> NoReturn:
        what, step = ("gradient" if math.isfinite(facts.loss) else "loss"), self.progress.step
        self.run.telemetry.flag("nan", f"the {what} is not finite at step {step}")
        raise TrainingError(
            f"the {what} is not finite at step {step}; the weights were not updated with it. Lower optimizer.learning_rate, or "
            "look at the data of this step, and resume from the last checkpoint"
        )

    # Figures.

    @property
    def epoch(self) -> float:
        return round(self.progress.step / self.task.steps_per_epoch, 4)

    @property
    def seconds(self) -> float:
        """Of training, in this process and those that it resumed."""
        return self.seconds_before + time.perf_counter() - self.started

    def outcome(self, reason: str) -> Outcome:
        progress = self.progress
        speed = progress.timed_tokens / progress.timed_seconds if progress.timed_seconds else 0.0
        memory = int(self.world.max(peak_memory(self.world.device) or 0)[0])
        samples = progress.timed_samples and progress.timed_samples / progress.timed_seconds
        share, losses = self.log.utilisation(speed), self.log.losses
        dtype = str(next(self.model.parameters()).dtype).removeprefix("torch.")
        return Outcome(
            progress, self.total, reason, self.seconds, memory, losses, speed, samples, share, self.requests, dtype
        )
