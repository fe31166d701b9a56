"""The cache that several runs on a box share, and work that the main rank does for all ranks."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from remote_payload.train.distributed import World
from remote_payload.train.errors import InputError, TrainingError
from remote_payload.train.run import Run


def cache_folder(run: Run) -> Path:
    """Where a job keeps its tokenizer and rows: beside the Hub's cache on a box, beside the run's folder for a job started by hand."""
    home = os.environ.get("HF_HOME") if os.environ.get("GPURUN_RUN_DIR") else None
    caches = Path(home).parent if home else run.outputs.parent.parent / "cache"
    return caches / "tokens" / str(run.job.get("name") or run.recipe)


def main_rank_first(world: World, waiting_room: Path, work: Callable[[], None]) -> None:
    """Does ``work`` on the main rank while the other ranks wait. An InputError or TrainingError of it is raised on every rank.

    The others wait for a file lock in the folder ``waiting_room`` and not in a collective: a collective gives up after half an
    hour, and a large corpus takes longer.
    """
    waiting_room.mkdir(parents=True, exist_ok=True)
    problem: InputError | TrainingError | None = None
    with open(waiting_room / f".ranks-{os.environ.get('MASTER_PORT', os.getpid())}", "w") as lock:
        if world.main:
            fcntl.flock(lock, fcntl.LOCK_EX)
        world.barrier()
        if world.main:
            try:
                work()
            except (InputError, TrainingError) as error:
                problem = error
        else:
            fcntl.flock(lock, fcntl.LOCK_EX)
        fcntl.flock(lock, fcntl.LOCK_UN)
    problem = world.broadcast(problem)
    if problem:
        raise problem
