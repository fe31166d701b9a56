"""``gpurun report``."""

from __future__ import annotations

from pathlib import Path

import click

from runner.cli import options, output


@click.command(
    "report",
    epilog="\b\nExamples:\n  gpurun report                     the newest run, written beside its record\n"
    "  gpurun report legal -o legal.html --open",
)
@options.run_argument
@click.option(
    "-o", "--output", "into", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write it there."
)
@click.option("--open", "shall_open", is_flag=True, help="Show it in the browser.")
@options.json_option
def command(run: str | None, into: Path | None, shall_open: bool, as_json: bool) -> None:
    """Write a page about a run: one HTML file that loads nothing from anywhere.

    Outcome and cause, curves, evaluations, events, hardware, cost, data, settings, samples, environment, the end of the log, and the
    command that does it again. What is newer on the box is brought first; where the box cannot be reached, the page says so.
    """
    from runner import store
    from runner.workflow.reporting.write import report_of

    written = report_of([store.find(run)], output.reporter(as_json), into and into.expanduser().absolute())
    if shall_open:
        import webbrowser

        webbrowser.open(written.path.as_uri())
    if as_json:
        return output.print_document({"path": str(written.path), "bytes": written.bytes, "notes": list(written.notes)})
    from runner.domain.quantities import format_size

    click.echo(f"{written.path} ({format_size(written.bytes)})")
