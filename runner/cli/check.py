"""``gpurun check``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from runner.cli import options, output

if TYPE_CHECKING:
    from runner.push.preview import Preview
    from runner.workflow.check import Checked

NOT_READY = 3  # the exit code when a submission would fail


@click.command("check", epilog="\b\nExample:\n  gpurun check jobs/legal.yaml --host root@remote-gpu")
@click.argument("job", type=click.Path(), metavar="JOB")
@options.host_option(required=True)
@options.job_options
@options.json_option
def command(
    job: str, host: str, overrides: tuple[str, ...], volume: str | None, strict: bool, checksum: bool, as_json: bool
) -> None:
    """Check everything that could make a submission fail, before money is spent.

    Looks at the job, the box and the access to models. Sends and starts nothing.
    Exits with 3 if a submission would fail.
    """
    from runner.jobfile import load
    from runner.workflow.check import check

    report = output.reporter(as_json)
    (checked,) = check([load(job, overrides)], host, report, volume=volume, strict=strict, checksum=checksum)
    if as_json:
        from runner.cli.as_document.checks import check_document

        output.print_document(check_document(checked))
    else:
        show(checked)
    sys.exit(0 if checked.ready else NOT_READY)


def show(checked: Checked) -> None:
    """Prints what was found out about one job, for a person."""
    marks = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}
    for finding in checked.findings:
        mark, colour = marks[finding.verdict]
        output.print_untrusted(f"{finding.what}: {finding.said}", prefix=click.style(mark, fg=colour) + " ")
        if finding.hint and finding.verdict != "ok":
            output.print_untrusted(f"    {finding.hint}")
    for name, preview in checked.previews.items():
        _print_preview(name, preview)
    click.echo("ready to submit" if checked.ready else "NOT ready: a submission would stop here")


def _print_preview(name: str, preview: Preview) -> None:
    from runner.domain.quantities import format_size, pluralise

    click.echo(f"\n{name}: {pluralise(preview.count, 'file')}, {format_size(preview.bytes)} from {preview.root}")
    for item in preview.folders:
        output.print_untrusted(f"  {format_size(item.bytes):>10}  {item.path}")
    if preview.left_out:
        click.echo(f"  left out ({preview.left_out_count}):")
    for left in preview.left_out:
        output.print_untrusted(f"  {format_size(left.bytes):>10}  {left.path}  {left.reason}")
