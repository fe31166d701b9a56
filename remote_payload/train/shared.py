"""Folders that several runs of a box use, and work that one process does for all."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from remote_payload.train.distributed import World
from remote_payload.train.errors import InputError, TrainingError
from remote_payload.train.folders import recover_folder
from remote_payload.train.run import Run


def cache_folder(run: Run) -> Path:
    """Where what is made once for a job lies: beside the Hub's cache on a box, beside the runs of a job started by hand."""
    home = os.environ.get("HF_HOME") if os.environ.get("GPURUN_RUN_DIR") else None
    caches = Path(home).parent if home else run.outputs.parent.parent / "cache"
    return caches / "tokens" / str(run.job.get("name") or run.recipe)


@contextmanager
def alone(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """One process at a time makes a folder that runs share; another that wants it too waits, and then finds it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f".lock-{folder.name}", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run that is making {folder}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        recover_folder(folder)
        yield


def main_rank_first(world: World, waiting_room: Path, work: Callable[[], None]) -> None:
    """Does ``work`` on the main rank while the others wait, however long it takes; its errors are raised on every rank.

    They wait for a lock, not in a collective: those give up after half an hour, and a large corpus takes longer.
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
