"""``gpurun status``."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from runner.cli import options, output
from runner.domain.errors import RunLost

if TYPE_CHECKING:
    from runner.workflow.status import Seen


@click.command("status", epilog="\b\nExamples:\n  gpurun status\n  gpurun status legal-20260102-142030-7f3a --json")
@options.run_argument
@options.moved_host_option
@options.json_option
def command(run: str | None, host: str | None, as_json: bool) -> None:
    """Show one run: phase, outcome, step, ETA, loss, GPU, disk, cost so far.

    Exits with 12 if the box does not know the run.
    """
    from runner import store
    from runner.workflow.status import refresh_status

    report = output.reporter(as_json)
    seen = refresh_status(options.run_at(store.find(run), host, report), report)
    if as_json:
        from runner.cli.as_document.runs import run_now_document

        output.print_document(run_now_document(seen))
    else:
        for name, value in _facts(seen):
            if value:
                output.print_untrusted(f"{name:<10}{value}")
    if seen.not_there:
        sys.exit(RunLost.exit_code)


def _facts(seen: Seen) -> list[tuple[str, str]]:
    from runner.domain.quantities import format_duration
    from runner.workflow.listing import describe, recovery_advice

    run, status = seen.run, seen.status
    facts = [("run", run.run_id), ("host", f"{run.host}  {run.address}".strip())]
    facts += [("", f"{other.host}  {other.address}".strip()) for other in run.others]
    facts.append(("status", describe(run)))
    if seen.unreachable:
        ago = f", {format_duration(time.time() - seen.at)} ago" if seen.at else ""
        facts.append(("", f"as last seen{ago}: {seen.unreachable}"))
    if seen.not_there:
        facts.append(("", "it is not on that box: deleted there, or another box has this address now"))
    if run.parent:
        facts.append(("", f"goes on from {run.parent}"))
    if run.went_on_as:
        facts.append(("", f"went on as {run.went_on_as}: gpurun status {run.went_on_as}"))
    if not run.launched:
        never = "it never started" if not run.may_be_there else "its start was never confirmed"
        facts += [("why" if number == 0 else "", line) for number, line in enumerate(run.why_not_started.splitlines())]
        facts.append(("change", run.not_started.hint if run.not_started else ""))
        facts.append(
            ("", f"{never}: {run.how_to_start}" + (" attaches to it or starts it" if run.may_be_there else ""))
        )
    if status is None:
        return facts
    progress = status.progress
    facts += [("change", line) for line in recovery_advice([run])]
    facts += [
        ("", "its supervisor died; the processes go on, stop and logs work" if status.orphaned else ""),
        ("", "stalled: its processes are stopped" if status.stalled else ""),
        ("why", status.evidence or ""),
        ("change", status.advice or ""),
        ("step", _step(progress.get("step"))),
        ("eta", format_duration(seen.eta) if seen.eta is not None else ""),
        ("eval", _numbers((progress.get("eval") or {}).get("metrics"))),
        ("flag", str((progress.get("flag") or {}).get("message") or "")),
        ("checkpoint", str((progress.get("checkpoint") or {}).get("name") or "")),
        ("hardware", _hardware(progress.get("hardware"))),
        ("gpus", ", ".join(map(str, status.gpus))),
        ("elapsed", format_duration(seen.elapsed) if seen.elapsed is not None else ""),
        ("cost", f"{seen.cost:.2f}{'' if status.finished else ' so far'}" if seen.cost is not None else ""),
        ("fetched", run.fetched_into or ""),
    ]
    return facts


def _step(step: object) -> str:
    if not isinstance(step, dict):
        return ""
    shown = f"{step.get('step')}/{step.get('total')}"
    rest = _numbers({key: step.get(key) for key in ("epoch", "loss", "lr", "tokens_per_second", "mfu", "ms")})
    return f"{shown}  {rest}"


def _hardware(sample: object) -> str:
    """One line of the sampler's last look; its nested lists are one entry a GPU."""
    if not isinstance(sample, dict):
        return ""
    gpus = sample.get("gpus")
    parts = ["GPU " + _numbers(gpu) for gpu in (gpus if isinstance(gpus, list) else ()) if isinstance(gpu, dict)]
    return "; ".join([*parts, _numbers(sample)])


def _numbers(values: object) -> str:
    if not isinstance(values, dict):
        return ""
    return "  ".join(
        f"{name} {value:.4g}"
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "t"
    )
