"""What still holds the GPUs from before: ended when it was a finished run of gpurun's, else shown, and ended only when told to."""

from __future__ import annotations

from typing import Any

from runner.domain.box import Box
from runner.domain.progress import Reporter
from runner.domain.terminal import clean
from runner.transport.link import Link
from runner.workflow.plan import Plan


def clear(link: Link, plan: Plan, box: Box, report: Reporter, *, kill: bool) -> None:
    """Asks the box to end left-overs of finished runs (all candidates with ``kill``), and reports what stays."""
    if not box.gpus or plan.job.resources.gpus == 0:
        return
    with report.stage("stale GPU processes") as stage:
        answer = link.agent.call("stale", {"kill": kill, "gpus": plan.job.resources.gpus})
        ended = _entries(answer, "ended")
        stage.update(note=f"{len(ended)} ended" if ended else "none of ours")
    for entry in _entries(answer, "others"):
        if not entry.get("run_id"):  # a run of gpurun's is no surprise: GPUs that it holds are not given to another
            advice = f"left alone ({clean(entry['kept'], 80)})" if entry.get("kept") else "--kill-stale ends it"
            report.warn(f"a process that is not gpurun's has a GPU open: {_shown(entry)}; {advice}")
    for entry in _entries(answer, "survivors"):
        report.warn(f"pid {clean(entry.get('pid'))} ({clean(entry.get('name'), 40)}) could not be ended")
    for entry in _entries(answer, "held"):
        gibibytes = (entry.get("bytes") or 0) / 2**30
        report.warn(
            f"GPU {clean(entry.get('gpu'))} has {gibibytes:.1f} GiB in use by nobody who is visible in this container"
        )


def _entries(answer: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [entry for entry in answer.get(name) or () if isinstance(entry, dict)]


def _shown(entry: dict[str, Any]) -> str:
    return f"pid {clean(entry.get('pid'))}, {clean(entry.get('user'))}, {clean(entry.get('age'))} s old: {clean(entry.get('command'), 80)}"
