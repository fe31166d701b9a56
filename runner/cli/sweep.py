"""``gpurun sweep``."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from runner.cli import options, output
from runner.cli.audience import is_person
from runner.cli.table import print_rows
from runner.domain.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, RenderableType

    from runner.domain.progress import Reporter
    from runner.workflow.sweeping.find import Sweep
    from runner.workflow.sweeping.look import Row, View
    from runner.workflow.sweeping.summary import Mean

EVERY = 5.0  # seconds between two questions to a box
RUNS = ("run", "settings", "status", "as of", "step", "eta", "loss", "metric", "gpu", "cost", "checkpoints")
SHRINK = {"settings": 8, "status": 12}
DROP = ("as of", "checkpoints", "cost", "gpu", "loss", "eta", "settings", "metric", "step")
MEANS = ("experiment", "evaluation", "metric", "mean ± sd", "runs")
SHOWN = 40  # means that a terminal is shown


@click.command(
    "sweep",
    epilog="\b\nExamples:\n  gpurun sweep             the newest submission\n  gpurun sweep mayors      the newest of that job file\n"
    "  gpurun sweep 3fa9c210 --csv > results.csv",
)
@click.argument("name", required=False, metavar="[ID or NAME]", shell_complete=options.complete_sweep)
@click.option("--csv", "as_csv", is_flag=True, help="Print the means as CSV, and no table.")
@options.json_option
def command(name: str | None, as_csv: bool, as_json: bool) -> None:
    """Show the runs of one submission, and what they measured.

    A line for each run, then the mean ± standard deviation (n - 1) over the seeds of each experiment, for every metric of every evaluation.
    Only runs that succeeded count. models/best is the chosen model; the other evaluations are the last ones of their names.

    In a terminal the runs are asked every few seconds until all are over. Without ID or NAME, shows the newest submission.
    """
    from runner.workflow.sweeping.find import find_sweep
    from runner.workflow.sweeping.summary import summarise

    if as_csv and as_json:
        raise click.UsageError("give --csv or --json, not both")
    view = _look(find_sweep(name), quiet=as_json, once=as_csv)
    means = summarise(view.rows)
    if as_json:
        from runner.cli.as_document.sweep import sweep_document

        return output.print_document(sweep_document(view, means))
    if as_csv:
        return _print_csv(means)
    _print_tables(view, means)


def show_table(sweep: Sweep, *, once: bool) -> View:
    """Shows the table as the command does, live on a terminal unless ``once``; gives what it ended with."""
    from runner.workflow.sweeping.summary import summarise

    view = _look(sweep, quiet=False, once=once)
    _print_tables(view, summarise(view.rows))
    return view


def _look(sweep: Sweep, *, quiet: bool, once: bool) -> View:
    from runner.domain.errors import Interrupted
    from runner.workflow.sweeping.look import look, watch

    if quiet or once or not (is_person(sys.stdout) and is_person(sys.stderr)):
        return look(sweep, output.reporter(quiet))
    from runner.cli.watching.keys import q_interrupts

    try:
        with q_interrupts(), _drawn() as (report, show):
            return watch(sweep, report, show, EVERY)
    except KeyboardInterrupt:
        raise Interrupted(f"The runs go on: gpurun sweep {sweep.id}") from None


@contextmanager
def _drawn() -> Iterator[tuple[Reporter, Callable[[View], None]]]:
    """A table on the terminal that changes, and a reporter whose lines stay above it; the table is gone when the block ends."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield _Above(console), lambda view: live.update(_table(view, console.width, console.height), refresh=True)


class _Above(Silent):
    """Notes and warnings as lines above the table; no stages."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        self.note(f"warning: {text}")


def _table(view: View, width: int, height: int) -> RenderableType:
    from rich.text import Text

    from runner.cli.table import rendered
    from runner.workflow.sweeping.summary import summarise

    lines = rendered(RUNS, [_cells(row) for row in view.rows], width, shrink=SHRINK, drop=DROP)
    means = summarise(view.rows)
    if means:
        lines += ["", *rendered(MEANS, [_mean(each) for each in means], width)]
    if len(lines) > height - 2:
        lines = [*lines[: height - 3], f"… {len(lines) - height + 3} more lines: gpurun sweep {view.sweep.id} | less"]
    return Text("\n".join([*lines, _total(view)]), no_wrap=True, overflow="ellipsis")


def _print_tables(view: View, means: Sequence[Mean]) -> None:
    print_rows(RUNS, [_cells(row) for row in view.rows], "no run", shrink=SHRINK, drop=DROP)
    shown = means[:SHOWN] if is_person(sys.stdout) else means
    if shown:
        click.echo()
        print_rows(MEANS, [_mean(each) for each in shown], "")
    click.echo()
    click.echo(_total(view))
    if len(shown) < len(means):
        click.echo(f"{len(means) - len(shown)} more means: gpurun sweep {view.sweep.id} --csv", err=True)
    for reason in dict.fromkeys(row.unreachable for row in view.rows if row.unreachable):
        output.print_untrusted(f"warning: {reason}; its runs are shown as they were last seen", err=True)


def _print_csv(means: Sequence[Mean]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("experiment", "evaluation", "metric", "mean", "sd", "count", "runs"))
    for each in means:
        sd = "" if each.deviation is None else repr(each.deviation)
        writer.writerow((each.experiment, each.evaluation, each.metric, repr(each.mean), sd, each.count, each.runs))


def _cells(row: Row) -> list[str]:
    from runner.domain.quantities import format_duration
    from runner.workflow.observing.listing import age_of, describe, step_of

    run, seen = row.run, row.seen
    step = (run.status.progress.get("step") if run.status else None) or {}
    loss = step.get("loss")
    return [
        run.run_id,
        ", ".join(f"{key} {value}" for key, value in row.settings.items()),
        describe(run),
        age_of(run) if row.unreachable else "",
        step_of(run),
        format_duration(seen.eta) if seen.eta is not None else "",
        f"{loss:.4f}" if isinstance(loss, int | float) else "",
        f"{row.metric[0]} {row.metric[1]:.4g}" if row.metric else "",
        ",".join(map(str, run.status.gpus)) if run.status and not run.status.finished else "",
        f"{row.cost:.2f}" if row.cost is not None else "",
        _checkpoints(row),
    ]


def _checkpoints(row: Row) -> str:
    """Bytes of the final one, and how many there are in all with their bytes: ``14.6 GB / 6, 90.2 GB``."""
    from runner.domain.quantities import format_size

    if row.results is None or not row.results.checkpoints:
        return ""
    final = format_size(row.results.final) if row.results.final is not None else "-"
    return f"{final} / {row.results.checkpoints}, {format_size(row.results.bytes)}"


def _mean(mean: Mean) -> list[str]:
    value = f"{mean.mean:.4g}" + (f" ± {mean.deviation:.2g}" if mean.deviation is not None else "")
    return [mean.experiment, mean.evaluation, mean.metric, value, f"{mean.count} of {mean.runs}"]


def _total(view: View) -> str:
    """How many runs are in which state, what they have cost, and the sizes of their checkpoints."""
    from collections import Counter

    from runner.domain.quantities import format_size, pluralise
    from runner.workflow.observing.listing import describe

    states = Counter(describe(row.run).partition(" (")[0] for row in view.rows)
    parts = [f"{pluralise(len(view.rows), 'run')}: " + ", ".join(f"{count} {state}" for state, count in states.items())]
    found = [row.results for row in view.rows if row.results]
    finals = [each.final for each in found if each.final is not None]
    if finals:
        count = sum(each.checkpoints for each in found)
        parts.append(
            f"checkpoints final {len(finals)} ({format_size(sum(finals))}), all {count} ({format_size(sum(each.bytes for each in found))})"
        )
    costs = [row.cost for row in view.rows if row.cost is not None]
    if costs:
        parts.append(f"cost {sum(costs):.2f}")
    return "; ".join([f"sweep {view.sweep.id}", *parts])
