"""What the local records tell about runs: status, step, cost and checkpoints. Nobody is asked, little is loaded."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from runner.domain import places
from runner.domain.answers.status import Status
from runner.domain.answers.verbs import GpuSetAside
from runner.domain.quantities import pluralise
from runner.domain.run import Run

_NAME = re.compile(rb"step-[0-9]{1,12}")


def describe(run: Run) -> str:
    """The status in a word or two: ``running``, ``succeeded``, ``failed (cuda_oom)``, ``not started``."""
    if not run.launched:
        cause = run.not_started.cause if run.not_started else ""
        return f"not started ({cause})" if cause else "start not confirmed" if run.attempted else "not started"
    if run.went_on_as and not (run.status and run.status.finished):
        return "went on elsewhere"  # its box was not heard of again
    return in_words(run.status) if run.status else "launched"


def as_stories(runs: Sequence[Run]) -> list[tuple[Run, bool]]:
    """The runs with those that resume one of them behind it (True), the parts of one story together, where its newest part stands."""
    return [(run, run is not story[0]) for story in stories(runs) for run in story]


def stories(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs, each with those that resume it, oldest first; the stories in the order of their newest parts."""
    known = {run.run_id: run for run in runs}
    found: dict[str, list[Run]] = {}
    for run in runs:
        first = run
        seen = {run.run_id}
        while first.parent in known and first.parent not in seen:
            first = known[first.parent]
            seen.add(first.run_id)
        story = found.pop(first.run_id, [])
        found[first.run_id] = [*story, run]
    return list(found.values())


def sweeps_of(runs: Iterable[Run]) -> set[str]:
    """The submissions of several of these runs, those that resume one not counted: what ``gpurun sweep`` shows as one."""
    count = Counter(run.submission for run in runs if run.submission and not run.parent)
    return {submission for submission, runs_of_it in count.items() if submission and runs_of_it > 1}


def in_words(status: Status) -> str:
    """A status in a word or two."""
    state = status.outcome or status.phase
    return f"{state} ({status.cause})" if status.cause and state != "succeeded" else state


def step_of(run: Run) -> str:
    """``46/68``, or ``46`` where nobody has said how many there will be; empty before the first step."""
    step = (run.status.progress.get("step") if run.status else None) or {}
    if step.get("step") is None:
        return ""
    return f"{step['step']}/{step['total']}" if step.get("total") is not None else f"{step['step']}"


def checkpoint_names(run: Run) -> list[str]:
    """The checkpoints that the local copy of the run's events names, and those that are here; the oldest first."""
    names: set[str] = set()
    with contextlib.suppress(OSError), open(places.run_folder(run.run_id) / "events.jsonl", "rb") as events:
        for line in events:
            if b'"checkpoint"' in line:
                names.update(name.decode() for name in _NAME.findall(line))
    names.update(name for name in listdir(run.outputs_here / "checkpoints") if _NAME.fullmatch(name.encode()))
    names.update({"best"} & set(listdir(run.outputs_here / "models")))
    return sorted(names)


def listdir(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def elapsed(status: Status | None) -> float | None:
    """Seconds of a run at the time of this status, by the box's clock alone: ours may be hours away from it."""
    until = (status.ended_at or status.now) if status else None
    return None if status is None or status.started_at is None or until is None else max(0.0, until - status.started_at)


def cost(run: Run) -> float | None:
    """What the run has cost as last seen, in the job's own currency; None without ``price_per_hour``."""
    price, seconds = run.job.price_per_hour, elapsed(run.status)
    return price * run.job.resources.boxes * seconds / 3600 if price and seconds is not None else None


def age_of(run: Run) -> str:
    """How old the status is, such as ``3 min ago``; empty if it cannot have changed since."""
    if run.status_at is None or (run.status and run.status.finished):
        return ""
    seconds = max(0, int(time.time() - run.status_at))
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return "now"


def short_host(run: Run) -> str:
    """The host without user and options: what tells one box from another at a glance."""
    typed = run.address if " " in run.host else run.host
    return (typed or run.host).removeprefix("ssh://").rpartition("@")[2]


def set_aside_lines(host: str, gpus: Iterable[GpuSetAside]) -> list[str]:
    """For each GPU of a host that is set aside a line that says why, and what ends it."""
    return [
        f"GPU {each.gpu} is set aside: {' and '.join(each.runs)} failed on it at once ({each.evidence or 'a device error'});"
        f" if it works again: gpurun hosts use-gpu {shlex.quote(host)} {each.gpu}"
        for each in gpus
    ]


def waits_for_recovery(run: Run) -> bool:
    """Whether a restart of its box interrupted the run, as last seen, and none has taken its place."""
    return run.status is not None and run.status.outcome == "interrupted" and run.went_on_as is None


def recovery_advice(runs: Iterable[Run]) -> list[str]:
    """For each box a line about those of its runs that a restart interrupted, and what starts them again."""
    hosts = Counter(run.host for run in runs if waits_for_recovery(run))
    return [
        f"a restart of {host} interrupted {pluralise(count, 'run')}: gpurun resume --all --host {shlex.quote(host)}"
        for host, count in hosts.items()
    ]
