"""``gpurun submit``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from runner.cli import options, output

if TYPE_CHECKING:
    from runner.domain.progress import Reporter
    from runner.domain.run import Run
    from runner.workflow.check import Checked

EPILOG = """\b
Examples:
  gpurun submit jobs/legal.yaml --host root@remote-gpu
  gpurun submit jobs/legal.yaml --host "ssh -p 41022 root@1.2.3.4 -i ~/key"
  gpurun submit jobs/legal.yaml --host root@remote-gpu --dry-run
  gpurun submit a.yaml b.yaml --host root@8gpus      one connection for both
  gpurun submit jobs/demo.yaml --host local --set settings.epochs=1
  gpurun submit jobs/demo.yaml --host local --time-limit 12h --cost-limit 5

\b
If a submission was interrupted, repeat it with --run ID. Nothing is sent
twice, and the run cannot start twice."""


@click.command("submit", epilog=EPILOG)
@click.argument("jobs", nargs=-1, required=True, type=click.Path(), metavar="JOB...")
@options.host_option(required=True)
@options.job_options
@click.option("--time-limit", metavar="DURATION", help="End each run after this time, such as 90m or 12h.")
@click.option(
    "--cost-limit", metavar="MONEY", help="End each run when it has cost this much; the job has price_per_hour."
)
@click.option("--follow", "-f", is_flag=True, help="Then follow the log, fetch the outputs and test the model.")
@click.option("--keep", is_flag=True, help="Then bring home all that the runs produce, as gpurun keep does.")
@click.option("--dry-run", is_flag=True, help="Only check: send and start nothing.")
@click.option(
    "--kill-stale", is_flag=True, help="End processes in this container that hold a GPU, whoever started them."
)
@click.option("--despite-forecast", is_flag=True, help="Start a run that does not fit the box by its memory forecast.")
@click.option("--run", "run_id", metavar="ID", help="Continue an interrupted submission, or attach to its run.")
@options.json_option
def command(
    jobs: tuple[str, ...],
    host: str,
    overrides: tuple[str, ...],
    volume: str | None,
    strict: bool,
    checksum: bool,
    time_limit: str | None,
    cost_limit: str | None,
    follow: bool,
    keep: bool,
    dry_run: bool,
    kill_stale: bool,
    despite_forecast: bool,
    run_id: str | None,
    as_json: bool,
) -> None:
    """Start a run on a box.

    Checks the job and the box, forecasts memory, pushes code and data while the box builds the environment, logs in to the hub, ends stale
    GPU processes and launches.

    Returns when the box has confirmed the start. From then on the run does not need this machine. Exits with 10, and says why, if
    the run fails within its first moment.
    """
    from runner.jobfile import load_runs

    report = output.reporter(as_json)
    limits = {"time_limit": time_limit, "cost_limit": cost_limit}
    overrides += tuple(f"{name}={limit}" for name, limit in limits.items() if limit is not None)
    loaded = [run for path in jobs for run in load_runs(path, overrides)]
    if run_id and len(loaded) > 1:
        raise click.UsageError("--run takes one job only")
    if follow and keep:
        raise click.UsageError(
            "--follow and --keep cannot be combined: gpurun logs -f shows the log of a run that is kept"
        )
    if dry_run:
        from runner.workflow.check import check

        checked = check(
            [job for job, _ in loaded],
            host,
            report,
            volume=volume,
            strict=strict,
            checksum=checksum,
            despite_forecast=despite_forecast,
        )
        sys.exit(_show_checked(checked, as_json))
    from runner.workflow.submit import Options, submit

    runs = submit(loaded, host, report, Options(volume, strict, checksum, kill_stale, run_id, despite_forecast))
    _go_on(runs, report, follow=follow, keep=keep, as_json=as_json)


def _go_on(runs: list[Run], report: Reporter, *, follow: bool, keep: bool, as_json: bool) -> None:
    """What comes after the start: how the runs are, and what ``--follow`` and ``--keep`` asked for. Raises the first failure."""
    if not as_json:
        for run in runs:
            show_started(run, report)
    if follow:
        from runner.cli.following import follow_all

        follow_all(runs, report, as_json)
    if keep:
        from runner.cli.keep import keep_all

        return keep_all(runs, "all", None, as_json)
    from runner.workflow.status import failures_of

    failures = failures_of(runs)
    if as_json and not follow:
        from runner.cli.as_document.runs import run_document

        output.print_document({"runs": [run_document(run) for run in runs]})
        sys.exit(max((error.exit_code for error in failures), default=0))
    for error in failures:
        raise error


def _show_checked(checked: list[Checked], as_json: bool) -> int:
    """Prints what ``--dry-run`` found, job for job; gives the exit code."""
    from runner.cli.check import NOT_READY, show

    if as_json:
        from runner.cli.as_document.checks import dry_run_document

        output.print_document(dry_run_document(checked))
    for each in () if as_json else checked:
        if len(checked) > 1:
            click.echo(f"\n{each.job}")
        show(each)
    return 0 if all(each.ready for each in checked) else NOT_READY


def show_started(run: Run, report: Reporter) -> None:
    """Prints how a run is that the box has confirmed, and what to type next."""
    if run.status and run.status.finished:
        return report.note(f"{run.run_id} is over: {run.status.outcome}. next: gpurun logs    gpurun fetch")
    report.note(f"{run.run_id} runs on {run.address}. Close the laptop if you like.")
    report.note("next: gpurun logs -f    gpurun status    gpurun fetch    gpurun stop")
