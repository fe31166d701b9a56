"""``gpurun report``."""

from __future__ import annotations

from pathlib import Path

import click

from runner.cli import options, output


@click.command(
    "report",
    epilog="\b\nExamples:\n  gpurun report                     the newest run, written beside its record\n"
    "  gpurun report legal -o legal.html --open\n"
    "  gpurun report mayors              the runs of a sweep on one page",
)
@click.argument("names", nargs=-1, metavar="[RUN… or SWEEP]", shell_complete=options.complete_run)
@click.option(
    "-o", "--output", "into", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write it there."
)
@click.option("--open", "shall_open", is_flag=True, help="Show it in the browser.")
@options.json_option
def command(names: tuple[str, ...], into: Path | None, shall_open: bool, as_json: bool) -> None:
    """Write a page about runs: one HTML file that loads nothing from anywhere.

    Of one run: outcome and cause, curves, evaluations, events, hardware, cost, data, settings, samples, environment, the end of the
    log, and the command that does it again. Of several: in what they differ, what they measured, means over seeds, their curves over
    each other. What is newer on a box is brought first; where it cannot be reached, the page says so.
    """
    from runner import store
    from runner.workflow.reporting.write import report_of
    from runner.workflow.sweeping.find import runs_of

    runs = list({run.run_id: run for run in runs_of(names)}.values()) if names else [store.find(None)]
    written = report_of(runs, output.reporter(as_json), into and into.expanduser().absolute())
    if shall_open:
        import webbrowser

        webbrowser.open(written.path.as_uri())
    if as_json:
        return output.print_document({"path": str(written.path), "bytes": written.bytes, "notes": list(written.notes)})
    from runner.domain.quantities import format_size

    click.echo(f"{written.path} ({format_size(written.bytes)})")
