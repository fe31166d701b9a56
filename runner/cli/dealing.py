"""What ``gpurun submit --dry-run`` prints: what was found for each job, and with several boxes which run would go where, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from runner.cli import output

if TYPE_CHECKING:
    from runner.domain.job import Job
    from runner.domain.progress import Reporter
    from runner.workflow.check import Checked
    from runner.workflow.dealing.several import Dealing
    from runner.workflow.submit import Options


def check_first(
    jobs: Sequence[tuple[Job, str | None]], hosts: Sequence[str], options: Options, report: Reporter, as_json: bool
) -> int:
    """Checks each job on its box, and shows what was found; gives the exit code."""
    from runner.cli.check import NOT_READY

    dealing, checked = _dealt_and_checked(jobs, hosts, options, report)
    if as_json:
        from runner.cli.as_document.dealing import dry_run_document

        output.print_document(dry_run_document(checked, dealing))
    else:
        _show(checked, dealing)
    return 0 if all(each.ready for each in checked) else NOT_READY


def _dealt_and_checked(
    jobs: Sequence[tuple[Job, str | None]], hosts: Sequence[str], options: Options, report: Reporter
) -> tuple[Dealing | None, list[Checked]]:
    """Each job's check on the box that it is dealt to, in the order of the jobs."""
    from runner.workflow.check import check

    dealing = None
    if len(hosts) > 1:
        from runner.workflow.dealing.several import deal_only

        dealing = deal_only(jobs, hosts, report, options)
    by_host = [each.host for each in dealing.runs] if dealing else [hosts[0]] * len(jobs)
    found: dict[int, Checked] = {}
    for host in dict.fromkeys(by_host):
        numbers = [number for number, its in enumerate(by_host) if its == host]
        looked = check(
            [jobs[number][0] for number in numbers],
            host,
            report,
            volume=options.volume,
            strict=options.strict,
            checksum=options.checksum,
            despite_forecast=options.despite_forecast,
            engine=options.engine,
        )
        found.update(zip(numbers, looked, strict=True))
    return dealing, [found[number] for number in range(len(jobs))]


def _show(checked: Sequence[Checked], dealing: Dealing | None) -> None:
    from runner.cli.check import show

    for each in checked:
        if len(checked) > 1:
            click.echo(f"\n{each.job}")
        show(each)
    for dealt in dealing.runs if dealing else ():
        output.print_untrusted(f"{dealt.job.name} would go to {dealt.host}: {dealt.why}")
    for host, error in dealing.left_out.items() if dealing else ():
        output.print_untrusted(f"{host} would get no run: {error.message}")
