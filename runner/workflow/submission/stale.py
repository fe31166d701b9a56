"""Processes that still hold a GPU: leftovers of finished runs are ended, others are shown, and ended only with ``--kill-stale``."""

from __future__ import annotations

from runner.domain.answers.box import Box
from runner.domain.answers.verbs import Stranger
from runner.domain.progress import Reporter
from runner.domain.terminal import clean
from runner.transport.link import Link
from runner.workflow.submission.plan import Plan


def clear(link: Link, plan: Plan, box: Box, report: Reporter, *, kill: bool) -> None:
    """Asks the box to end what is left of finished runs (with ``kill`` other processes too), and reports what stays."""
    if not box.gpus or plan.job.resources.gpus == 0:
        return
    with report.stage("stale GPU processes") as stage:
        found = link.agent.stale(kill=kill, gpus=plan.job.resources.gpus)
        stage.update(note=f"{len(found.ended)} ended" if found.ended else "none of ours")
    for other in found.others:
        if not other.run_id:  # the GPUs of a run of gpurun's are not given to another
            advice = f"left alone ({clean(other.kept, 80)})" if other.kept else "--kill-stale ends it"
            report.warn(f"a process that is not gpurun's has a GPU open: {_shown(other)}; {advice}")
    for survivor in found.survivors:
        report.warn(f"pid {survivor.pid} ({clean(survivor.command, 40)}) could not be ended")
    for held in found.held:
        report.warn(
            f"GPU {held.gpu} has {held.bytes / 2**30:.1f} GiB in use by nobody who is visible in this container"
        )


def _shown(process: Stranger) -> str:
    age = "" if process.age is None else f", {max(0, process.age)} s old"
    return f"pid {process.pid}, {clean(process.user or 'a user without a name')}{age}: {clean(process.command, 80)}"
