"""Resuming from a checkpoint: restores its state, and refuses a job that does not fit the checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from remote_payload.train.errors import InputError
from remote_payload.train.loop.step import Task
from remote_payload.train.run import Run
from remote_payload.train.state.best import update_best
from remote_payload.train.state.checkpoint import discard_later, discard_leftovers, find_checkpoint, load_checkpoint
from remote_payload.train.state.progress import Progress


def resume(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, task: Task, progress: Progress) -> Path | None:
    """Restores model, optimizer, generators and ``progress`` from what ``run.resume`` names; None when nothing is resumed.

    ``progress`` comes with the seed, steps an epoch and micro-batch of this process. Raises InputError for a
    checkpoint that is not there, of another model, or of another seed.
    """
    if run.world.main:
        discard_leftovers(run.checkpoints)
    run.world.barrier()
    if not run.resume:
        return None
    path = find_checkpoint(run.resume, run.checkpoints)
    if path is None:
        run.log("no checkpoint yet: starting from the beginning")
        return None
    saved = Progress.from_state(load_checkpoint(path, run.world, model, optimizer))
    _same_plan(run, path, saved, progress)
    saved.micro_batch_rows, saved.probed = _micro_batch(run, saved, progress), progress.probed
    saved.hardware = progress.hardware
    saved.seed, saved.steps_per_epoch = progress.seed, progress.steps_per_epoch
    update_best(saved, run.settings.evaluation.metric, run.higher_is_better)
    vars(progress).update(vars(saved))
    _forget_later(run, path, progress.step)
    return path


def _same_plan(run: Run, path: Path, saved: Progress, now: Progress) -> None:
    """The position in the data is a number of steps: it must count the same examples in the same order."""
    if saved.seed not in (None, now.seed):
        raise InputError(
            f"resume: {path.name} was trained with seed {saved.seed}, the job says {now.seed}. Another seed draws split and order "
            f"again, so that what was trained on would be evaluated on; take seed {saved.seed}, or submit a run of its own"
        )
    if saved.steps_per_epoch not in (None, now.steps_per_epoch):
        run.telemetry.flag(
            "data_changed",
            f"{path.name} was trained with {saved.steps_per_epoch} steps an epoch and now there are {now.steps_per_epoch}: the data, "
            "its split or batch.size is another, so some examples may come twice and some not at all",
        )


def _micro_batch(run: Run, saved: Progress, now: Progress) -> int:
    """The checkpoint's micro-batch, which an OOM may have halved, if the same GPU is probed with the same result; otherwise (another
    GPU, or a number in the job) the one of this process. A larger GPU can have the same result: no more is tried than a whole batch.
    """
    same = saved.probed == now.probed and saved.hardware in ("", now.hardware)
    if run.settings.batch.micro == "auto" and same:
        return saved.micro_batch_rows
    return now.micro_batch_rows


def _forget_later(run: Run, path: Path, step: int) -> None:
    """Removes later checkpoints than the one that is resumed from: their steps are taken again. The folder is this run's own."""
    if path.parent.resolve() == run.checkpoints.resolve():
        removed = discard_later(run.checkpoints, step) if run.world.main else []
        if removed:
            run.log(f"removed later checkpoints: {', '.join(path.name for path in removed)}")
        run.world.barrier()
