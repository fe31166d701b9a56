"""How fast boxes have run a job so far, by the records of this machine: the milliseconds of a step that their runs reported last."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import median

from runner.domain.job import Job
from runner.domain.run import Run


def paces(runs: Iterable[Run], jobs: Iterable[tuple[Job, str | None]], boxes: Mapping[str, str]) -> dict[str, float]:
    """The speed of each host (``boxes``: host → identity) in parts of their mean, 1.0 for one of which nothing is known.

    Only runs of the same job file and experiment are compared, since a step of another takes another time: for each experiment that
    two hosts or more have run, each host's steps per second over the mean of the hosts; of these the geometric mean.
    """
    wanted = {(job.file, experiment or job.name) for job, experiment in jobs}
    seen: dict[object, dict[str, list[float]]] = {}
    for run in runs:
        key, ms = (run.job.file, run.experiment or run.job.name), _step_time(run)
        host = next((host for host, identity in boxes.items() if identity and run.box == identity), None)
        if key in wanted and ms is not None and host is not None:
            seen.setdefault(key, {}).setdefault(host, []).append(1000 / ms)
    ratios: dict[str, list[float]] = {}
    for by_host in seen.values():
        speeds = {host: median(each) for host, each in by_host.items()}
        mean = sum(speeds.values()) / len(speeds)
        for host, speed in speeds.items() if len(speeds) > 1 else ():
            ratios.setdefault(host, []).append(math.log(speed / mean))
    return {host: math.exp(sum(ratios[host]) / len(ratios[host])) if host in ratios else 1.0 for host in boxes}


def _step_time(run: Run) -> float | None:
    step = run.status.progress.get("step") if run.status else None
    ms = step.get("ms") if isinstance(step, dict) else None
    return float(ms) if isinstance(ms, int | float) and 0 < ms < math.inf else None
