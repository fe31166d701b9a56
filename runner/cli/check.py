"""``gpurun check``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from runner.cli import options, output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.domain.job import Job
    from runner.domain.progress import Reporter
    from runner.push.preview import Preview
    from runner.workflow.check import Checked, CheckedHost

NOT_READY = 3  # the exit code when a submission would fail


@click.command("check", epilog="\b\nExample:\n  gpurun check jobs/legal.yaml --host root@remote-gpu")
@click.argument("job", type=click.Path(), metavar="JOB")
@options.hosts_option
@options.job_options
@options.engine_option(options.ENGINE)
@options.json_option
def command(
    job: str,
    hosts: tuple[str, ...],
    overrides: tuple[str, ...],
    volume: str | None,
    strict: bool,
    checksum: bool,
    engine: str,
    as_json: bool,
) -> None:
    """Check everything that could make a submission fail, before money is spent.

    Looks at the job, the box and the access to models. Sends and starts nothing.
    With several boxes, each is looked at; for a job that runs on several at once (resources.boxes) the network between them
    is measured too. Exits with 3 if a submission would fail.
    """
    from runner.jobfile import load
    from runner.workflow.check import check

    report, loaded = output.reporter(as_json), load(job, overrides)
    if len(hosts) > 1 or (loaded.resources.boxes > 1 and engine != "slurm"):
        sys.exit(
            check_on_hosts(
                loaded, hosts, report, as_json, volume=volume, strict=strict, checksum=checksum, engine=engine
            )
        )
    (checked,) = check([loaded], hosts[0], report, volume=volume, strict=strict, checksum=checksum, engine=engine)
    if as_json:
        from runner.cli.as_document.checks import check_document

        output.print_document(check_document(checked))
    else:
        show(checked)
    sys.exit(0 if checked.ready else NOT_READY)


def check_on_hosts(
    job: Job,
    hosts: Sequence[str],
    report: Reporter,
    as_json: bool,
    *,
    volume: str | None,
    strict: bool,
    checksum: bool,
    engine: str = "box",
) -> int:
    """Prints what was found out about one job on each of several boxes; gives the exit code."""
    from runner.workflow.check import check_hosts

    looked = check_hosts(job, hosts, report, volume=volume, strict=strict, checksum=checksum, engine=engine)
    return _show_hosts(looked, as_json)


def _show_hosts(looked: Sequence[CheckedHost], as_json: bool) -> int:
    """Prints what was found out about one job on each box; gives the exit code."""
    if as_json:
        from runner.cli.as_document.checks import check_hosts_document

        output.print_document(check_hosts_document(looked))
    for each in () if as_json else looked:
        click.echo()
        output.print_untrusted(f"{each.host}:")
        if each.checked:
            show(each.checked)
        if each.error:
            output.print_untrusted(each.error.message, prefix=click.style("✗", fg="red") + " ")
            output.print_untrusted(f"    {each.error.hint}")
    return 0 if all(each.ready for each in looked) else NOT_READY


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
