"""Whether the disk has room for what a run will write, beside what the runs that have GPUs now will still write."""

import os
from typing import Iterable, Optional

from remote_payload.agent.box.files import disk_usage
from remote_payload.agent.run.order import read_launch
from remote_payload.agent.run.queue.choice import Needs
from remote_payload.agent.wire.paths import BoxPaths, RunPaths

GB = 1e9


def lacking(paths: BoxPaths, run: RunPaths, needs: Needs, running: Iterable[str]) -> Optional[str]:
    """What is missing for the run, in words; None where there is room. ``running`` are the ids of the runs that have GPUs.

    Each run is taken to still write what its launch forecast, less what lies in its outputs: a resumed one begins with some.
    """
    if not needs.disk:
        return None
    wanted, free = max(0, needs.disk - disk_usage(run.outputs)), free_bytes(paths.root)
    promised = sum(_still_to_write(paths.run(run_id)) for run_id in running) if free >= wanted else 0
    if free - promised >= wanted:
        return None
    others = ", of which running runs will take %.1f GB" % (promised / GB) if promised else ""
    told = "by its forecast it writes %.1f GB to the disk, %.1f GB are free%s; gpurun clean shows what may go"
    return told % (wanted / GB, free / GB, others)


def free_bytes(folder: str) -> int:
    """What may still be written to the filesystem of ``folder``. Raises OSError."""
    space = os.statvfs(folder)
    return space.f_bavail * space.f_frsize


def _still_to_write(run: RunPaths) -> int:
    launch = read_launch(run)
    return max(0, launch.disk - disk_usage(run.outputs)) if launch is not None and launch.disk else 0
