"""What the local records tell about runs: status, step, cost and checkpoints. Nobody is asked, little is loaded."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from runner.domain import places
from runner.domain.answers.status import Status
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
    known = {run.run_id: run for run in runs}
    stories: dict[str, list[Run]] = {}
    for run in runs:
        first = run
        seen = {run.run_id}
        while first.parent in known and first.parent not in seen:
            first = known[first.parent]
            seen.add(first.run_id)
        story = stories.pop(first.run_id, [])
        stories[first.run_id] = [*story, run]
    return [(run, run is not story[0]) for story in stories.values() for run in story]


def in_words(status: Status) -> str:
    """A status in a word or two."""
    state = status.outcome or status.phase
    return f"{state} ({status.cause})" if status.cause and state != "succeeded" else state


def step_of(run: Run) -> str:
    """``46/68``, empty before the first step."""
    step = (run.status.progress.get("step") if run.status else None) or {}
    return f"{step.get('step')}/{step.get('total')}" if step.get("step") is not None else ""


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
    return price * seconds / 3600 if price and seconds is not None else None


def short_host(run: Run) -> str:
    """The host without user and options: what tells one box from another at a glance."""
    typed = run.address if " " in run.host else run.host
    return (typed or run.host).removeprefix("ssh://").rpartition("@")[2]


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
