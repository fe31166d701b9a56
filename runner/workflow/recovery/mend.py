"""What a restart took from a box and this machine can replace: environments, by the job's requirements, and the training package."""

from __future__ import annotations

from collections.abc import Sequence

from runner.domain.errors import GpurunError
from runner.domain.progress import Reporter
from runner.transport import bundle
from runner.transport.link import Link
from runner.workflow.recovery.turns import Turn
from runner.workflow.submission import environment
from runner.workflow.submission.plan import requirements_of


def mend_payloads(link: Link, turns: Sequence[Turn], report: Reporter) -> None:
    """Sends the training package again where it is gone. Runs that need one of another version stay."""
    for sha256 in {turn.found.payload for turn in turns if turn.found.payload}:
        ours = bundle.payload()
        if ours.sha256 == sha256:
            with report.stage("send the training package", "bytes"):
                link.agent.install_payload(ours.sha256, ours.data)
            continue
        for turn in (turn for turn in turns if turn.found.payload == sha256):
            turn.stays(
                "its training package is gone, and this gpurun has another version of it",
                f"gpurun resume {turn.run_id} goes on with this version.",
            )


def mend_environments(link: Link, turns: Sequence[Turn], report: Reporter) -> dict[str, str]:
    """Builds what is gone, once for all runs that need the same. Gives the interpreter of each such run; those that get none stay."""
    built: dict[str, str | GpurunError] = {}
    found: dict[str, str] = {}
    for turn in turns:
        if turn.run is None or not turn.found.environment:
            continue
        wanted = requirements_of(turn.run.job)
        key = wanted.interpreter or wanted.key
        if key not in built:
            try:
                report.note(f"{turn.run_id}: {turn.found.environment}")
                built[key] = environment.build(link, wanted, turn.run.job.resources.gpus, report, prove=True)
            except GpurunError as error:
                built[key] = error
        answer = built[key]
        if isinstance(answer, GpurunError):
            turn.stays(f"{turn.found.environment}; {answer.message}", answer.hint)
        else:
            found[turn.run_id] = answer
    return found
