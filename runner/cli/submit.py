"""``gpurun submit``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from runner.cli import options, output

if TYPE_CHECKING:
    from runner.domain.job import Job
    from runner.domain.progress import Reporter
    from runner.domain.run import Run
    from runner.workflow.dealing.several import Dealing
    from runner.workflow.submit import Options

    Loaded = tuple[Job, str | None]  # a run with its experiment

EPILOG = """\b
Examples:
  gpurun submit jobs/legal.yaml --host root@remote-gpu
  gpurun submit jobs/legal.yaml --host "ssh -p 41022 root@1.2.3.4 -i ~/key"
  gpurun submit jobs/legal.yaml --host root@remote-gpu --dry-run
  gpurun submit a.yaml b.yaml --host root@8gpus      one connection for both
  gpurun submit sweep.yaml --host root@a --host root@b   dealt to both
  gpurun submit jobs/demo.yaml --host local --set settings.epochs=1
  gpurun submit jobs/demo.yaml --host local --time-limit 12h --cost-limit 5

\b
If a submission was interrupted, repeat it with --run ID. Nothing is sent
twice, and the run cannot start twice."""


@click.command("submit", epilog=EPILOG)
@click.argument("jobs", nargs=-1, required=True, type=click.Path(), metavar="JOB...")
@options.hosts_option
@options.job_options
@options.engine_option(options.ENGINE)
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
@click.option(
    "--run",
    "run_id",
    metavar="ID",
    shell_complete=options.complete_run,
    help="Continue an interrupted submission, or attach to its run.",
)
@options.json_option
def command(
    jobs: tuple[str, ...],
    hosts: tuple[str, ...],
    overrides: tuple[str, ...],
    volume: str | None,
    strict: bool,
    checksum: bool,
    engine: str,
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

    With several --host each run goes to the box where its turn comes first: by free GPUs, the speed of the boxes so far and what lies
    there already. A box that does not answer gets none. --dry-run shows which run would go where, and why.
    """
    report = output.reporter(as_json)
    limits = {"time_limit": time_limit, "cost_limit": cost_limit}
    loaded = _load(jobs, (*overrides, *(f"{name}={limit}" for name, limit in limits.items() if limit is not None)))
    boxes = engine != "slurm" and any(job.resources.boxes > 1 for job, _ in loaded)  # Slurm's jobs have several nodes
    if boxes:
        _fail_if_not_alone(loaded)
    else:
        _fail_if_hosts_do_not_fit(loaded, hosts, engine, run_id)
    if follow and keep:
        raise click.UsageError(
            "--follow and --keep cannot be combined: gpurun logs -f shows the log of a run that is kept"
        )
    from runner.workflow.submit import Options

    wishes = Options(volume, strict, checksum, kill_stale, run_id, despite_forecast, engine)
    if dry_run:
        sys.exit(_check(loaded, hosts, boxes, report, wishes, as_json))
    runs, dealing = _start(loaded, hosts, boxes, report, wishes)
    _go_on(runs, dealing, report, follow=follow, keep=keep, as_json=as_json)


def _load(jobs: Sequence[str], overrides: tuple[str, ...]) -> list[Loaded]:
    """The runs of all job files, in the order in which they are to start."""
    from runner.domain.sweep import take_turns
    from runner.jobfile import load_runs

    return take_turns([load_runs(path, overrides) for path in jobs])


def _fail_if_not_alone(loaded: Sequence[Loaded]) -> None:
    if len(loaded) > 1:
        raise click.UsageError("a run on several boxes (resources.boxes) is submitted alone")


def _fail_if_hosts_do_not_fit(loaded: Sequence[Loaded], hosts: Sequence[str], engine: str, run_id: str | None) -> None:
    if run_id and len(loaded) > 1:
        raise click.UsageError("--run takes one job only")
    if run_id and len(hosts) > 1:
        raise click.UsageError("--run takes one --host only: the box that the run was to start on")
    if len(hosts) > 1 and engine == "slurm":
        raise click.UsageError(
            "--engine slurm takes one --host only: the login node; the cluster itself deals its jobs"
        )


def _check(
    loaded: Sequence[Loaded], hosts: tuple[str, ...], boxes: bool, report: Reporter, wishes: Options, as_json: bool
) -> int:
    """What ``--dry-run`` does instead of a start; the exit code."""
    if boxes:
        from runner.cli.check import check_on_hosts

        job, _ = loaded[0]
        return check_on_hosts(
            job, hosts, report, as_json, volume=wishes.volume, strict=wishes.strict, checksum=wishes.checksum
        )
    from runner.cli.dealing import check_first

    return check_first(loaded, hosts, wishes, report, as_json)


def _start(
    loaded: Sequence[Loaded], hosts: Sequence[str], boxes: bool, report: Reporter, wishes: Options
) -> tuple[list[Run], Dealing | None]:
    """The runs that the boxes have confirmed; where they were dealt to several boxes, how."""
    if boxes:
        from runner.workflow.several_boxes.submit import submit_on_several

        return [submit_on_several(*loaded[0], hosts, report, wishes)], None
    if len(hosts) == 1:
        from runner.workflow.submit import submit

        return submit(loaded, hosts[0], report, wishes), None
    from runner.workflow.dealing.several import submit_to_several

    dealing = submit_to_several(loaded, hosts, report, wishes)
    return [dealt.run for dealt in dealing.runs if dealt.run], dealing


def _go_on(
    runs: list[Run], dealing: Dealing | None, report: Reporter, *, follow: bool, keep: bool, as_json: bool
) -> None:
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
    from runner.workflow.observing.status import failures_of

    failures = failures_of(runs)
    if as_json and not follow:
        from runner.cli.as_document.dealing import submit_document

        output.print_document(submit_document(runs, dealing))
        sys.exit(max((error.exit_code for error in failures), default=0))
    for error in failures:
        raise error


def show_started(run: Run, report: Reporter) -> None:
    """Prints how a run is that the box has confirmed, and what to type next."""
    if run.status and run.status.finished:
        return report.note(f"{run.run_id} is over: {run.status.outcome}. next: gpurun logs    gpurun fetch")
    if run.status and run.status.phase == "prepared":
        report.note(
            f"{run.run_id} waits on {run.addresses}: {run.status.evidence or 'it is prepared'}. Close the laptop if you like."
        )
    else:
        report.note(f"{run.run_id} runs on {run.addresses}. Close the laptop if you like.")
    report.note("next: gpurun watch    gpurun logs -f    gpurun fetch    gpurun stop")
