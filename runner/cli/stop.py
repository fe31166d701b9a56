"""``gpurun stop``."""

from __future__ import annotations

import click

from runner.cli import options, output


@click.command(
    "stop",
    epilog="\b\nExamples:\n  gpurun stop\n  gpurun stop --grace 0      kill at once, without a last checkpoint\n"
    "  gpurun stop mayors         the newest submission of that job file\n"
    "  gpurun stop --all          runs that wait for a GPU too",
)
@click.argument("runs", nargs=-1, metavar="[RUN...]", shell_complete=options.complete_run_or_sweep)
@click.option("--all", "everything", is_flag=True, help="Stop every run of this machine that is not over.")
@click.option(
    "--grace",
    type=options.number(click.FloatRange(0, 3600)),
    help="Seconds between TERM and KILL. Without it 45, or as long as the run needs to save its last checkpoint.",
)
@options.moved_host_option
@options.json_option
def command(runs: tuple[str, ...], everything: bool, grace: float | None, host: str | None, as_json: bool) -> None:
    """Stop runs: end all their processes, and check that none is left.

    RUN may be a sweep, by its id or its name: all its runs that are not over. Without RUN, stops the latest run.
    """
    from runner.workflow.observing.listing import describe
    from runner.workflow.stop import may_live, stop_all, unfinished
    from runner.workflow.sweeping.find import Chosen, find_started_runs

    if runs and everything:
        raise click.UsageError("give runs or --all, not both")
    if host and everything:
        raise click.UsageError("--host goes with runs; for every run of a box: gpurun hosts move OLD NEW")
    report = output.reporter(as_json)
    chosen = Chosen(unfinished(), several=True) if everything else find_started_runs(runs, of_sweep=may_live)
    stopped = stop_all([options.run_at(run, host, report) for run in chosen.runs], report, grace)
    if as_json:
        from runner.cli.as_document.runs import stop_document

        found = [stop_document(each) for each in stopped]
        return output.print_document({"runs": found} if chosen.several else found[0])
    for each in stopped:
        click.echo(f"{each.run.run_id}: {describe(each.run)}; no process of it is left.")
        for holder in each.device_holders:
            output.print_untrusted(
                f"a process that is not this run's has a GPU open: pid {holder.pid} ({holder.command}), GPU "
                + ", ".join(map(str, holder.gpus))
            )
    if not stopped:
        click.echo("no run is under way")
