"""``gpurun status``."""

from __future__ import annotations

import sys
import textwrap
import time
from typing import TYPE_CHECKING

import click

from runner.cli import audience, figures, options, output
from runner.domain.errors import RunLost

if TYPE_CHECKING:
    from runner.domain.run import Run
    from runner.workflow.observing.at_home import AtHome
    from runner.workflow.observing.status import Seen

NAMES = 12  # characters for the name of a value
BETWEEN = " " * 4  # two commands
Facts = list[tuple[str, str]]  # name and value; a value without a name belongs to the one above


@click.command("status", epilog="\b\nExamples:\n  gpurun status\n  gpurun status legal-20260102-142030-7f3a --json")
@options.run_argument
@options.moved_host_option
@options.json_option
def command(run: str | None, host: str | None, as_json: bool) -> None:
    """Show one run: phase, outcome, progress, time left, cost, GPUs, disk, where its outputs are and what to do next.

    Memory is in GiB, disk in GB. Exits with 12 if the box does not know the run.
    """
    from runner import store
    from runner.workflow.observing.status import refresh_status

    report = output.reporter(as_json)
    seen = refresh_status(options.run_at(store.find(run), host, report), report)
    if as_json:
        from runner.cli.as_document.runs import run_now_document

        output.print_document(run_now_document(seen))
    else:
        from runner.workflow.observing.at_home import at_home

        named = "" if store.run_ids()[-1:] == [seen.run.run_id] else f" {seen.run.run_id}"
        for name, value in facts(seen, at_home(seen.run), named):
            _print(name, value)
    if seen.not_there:
        sys.exit(RunLost.exit_code)


def _print(name: str, value: str) -> None:
    """One value, on a terminal in lines that stand below each other; commands stay whole, so that they can be copied."""
    width = audience.columns()
    if width is None or NAMES + len(value) <= width:
        lines = [value]
    elif name == "next":
        lines = value.split(BETWEEN)
    else:
        lines = textwrap.wrap(value, max(20, width - NAMES), break_long_words=False, break_on_hyphens=False)
    for place, line in enumerate(lines):
        output.print_untrusted(f"{'' if place else name:<{NAMES}}{line}")


def facts(seen: Seen, home: AtHome, named: str) -> Facts:
    """What is told of a run: each value with its name, none of them empty. ``named`` stands behind the commands that come next: the run's
    id with a space in front, or nothing where they take this run by themselves."""
    told = [*_who(seen), *_why_not_started(seen.run), *_trouble(seen), *_work(seen), *_machine(seen), *_money(seen)]
    told += [("outputs", _outputs(seen, home)), ("next", _next(seen, home, named))]
    return [(name, value) for name, value in told if value]


def _who(seen: Seen) -> Facts:
    from runner.domain.quantities import format_duration
    from runner.workflow.observing.listing import describe

    run = seen.run
    told = [("run", run.run_id), ("host", f"{run.host}  {run.address}".strip())]
    told += [("", f"{other.host}  {other.address}".strip()) for other in run.others]
    told.append(("status", describe(run)))
    if seen.unreachable:
        ago = f", {format_duration(time.time() - seen.at)} ago" if seen.at else ""
        told.append(("", f"as last seen{ago}: {seen.unreachable}"))
    if seen.not_there:
        told.append(("", "it is not on that box: deleted there, or another box has this address now"))
    told.append(("", f"goes on from {run.parent}" if run.parent else ""))
    told.append(("", f"went on as {run.went_on_as}: gpurun status {run.went_on_as}" if run.went_on_as else ""))
    return told


def _why_not_started(run: Run) -> Facts:
    if run.launched:
        return []
    told = [("why" if number == 0 else "", line) for number, line in enumerate(run.why_not_started.splitlines())]
    told.append(("change", run.not_started.hint if run.not_started else ""))
    never = "it never started" if not run.may_be_there else "its start was never confirmed"
    told.append(("", f"{never}: {run.how_to_start}" + (" attaches to it or starts it" if run.may_be_there else "")))
    return told


def _trouble(seen: Seen) -> Facts:
    from runner.workflow.observing.listing import recovery_advice

    status = seen.status
    if status is None:
        return []
    told = [("change", line) for line in recovery_advice([seen.run])]
    told += [
        ("", "its supervisor died; the processes go on, stop and logs work" if status.orphaned else ""),
        ("", "stalled: its processes are stopped" if status.stalled else ""),
        ("why", status.evidence or ""),
        ("change", status.advice or ""),
        ("flag", str((status.progress.get("flag") or {}).get("message") or "")),
    ]
    return told


def _work(seen: Seen) -> Facts:
    told = seen.status.progress if seen.status else {}
    step = told.get("step")
    return [
        ("progress", figures.progress(step)),
        ("left", figures.left(seen)),
        ("pace", figures.pace(step)),
        ("training", figures.training(step)),
        ("evaluation", figures.evaluation(told.get("eval"))),
        ("checkpoint", str((told.get("checkpoint") or {}).get("name") or "")),
    ]


def _machine(seen: Seen) -> Facts:
    """The last sample of the hardware, while the run has it."""
    status = seen.status
    if status is None or status.finished:
        return []
    gpus = [(f"GPU {index}", text) for index, text in figures.gpus(status)]
    if not gpus and status.gpus:
        gpus = [("GPU", ", ".join(map(str, status.gpus)))]
    return [
        *gpus,
        ("memory", figures.memory(status)),
        ("processors", figures.processors(status)),
        ("disk", figures.disk(status)),
    ]


def _money(seen: Seen) -> Facts:
    from runner.domain.quantities import format_duration

    return [
        ("elapsed", format_duration(seen.elapsed) if seen.elapsed is not None else ""),
        ("cost", figures.cost(seen)),
    ]


def _outputs(seen: Seen, home: AtHome) -> str:
    status = seen.status
    if home.complete:
        return f"home, all of them: {home.folder}"
    if home.folder is None:
        started = status is not None and status.phase in ("running", "finished") and not seen.not_there
        return "on the box; nothing is home" if started else ""
    newest = f", the newest checkpoint {home.checkpoints[-1]}" if home.checkpoints else ""
    return f"in part home{newest}: {home.folder}"


def _next(seen: Seen, home: AtHome, named: str) -> str:
    """The commands that fit what the run is doing, four spaces between them."""
    run, status = seen.run, seen.status
    if status is None or run.went_on_as or (not run.launched and not run.may_be_there):
        return ""
    if seen.not_there:
        words = [f"gpurun status{named} --host NEW"]
    elif not status.finished:
        waits = status.phase == "prepared"
        words = [
            f"gpurun watch{named}",
            f"gpurun logs -f{named}",
            *([] if waits else [f"gpurun fetch{named}"]),
            f"gpurun stop{named}",
        ]
    elif status.outcome == "succeeded":
        test = [f"gpurun smoke-test{named}"] if run.job.recipe else []
        words = [*test, f"gpurun done{named}"] if home.complete else [f"gpurun fetch{named}"]
    else:
        resumable = bool(status.progress.get("checkpoint")) and status.outcome != "interrupted"
        again = [f"gpurun resume{named}"] if resumable else []
        words = [f"gpurun logs{named} --tail 50", *again, f"gpurun fetch{named}"]
    return BETWEEN.join([] if run.done else words)
