"""``gpurun resume``."""

from __future__ import annotations

import sys
from typing import Literal

import click

from runner.cli import options, output


@click.command(
    "resume",
    epilog="\b\nExamples:\n  gpurun resume\n  gpurun resume --checkpoint step-000100 --set settings.epochs=5\n"
    "  gpurun resume --host root@5.6.7.8     on another box, from what is home\n"
    "  gpurun resume --all --host root@1.2.3.4     after a restart of the box\n"
    "  gpurun resume --all mayors                  the same for a sweep\n"
    "  gpurun resume --all mayors --host root@5.6.7.8     its box is gone",
)
@options.run_or_sweep_argument
@click.option(
    "--checkpoint",
    default="auto",
    show_default=True,
    metavar="NAME",
    shell_complete=options.complete_checkpoint,
    help="The checkpoint to continue from; gpurun checkpoints lists them.",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Start what a restart of the box --host interrupted, of a sweep on all its boxes; on --host also what was on a box that is gone.",
)
@click.option("--dry-run", is_flag=True, help="With --all: only say what would be started; start nothing.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field of the job.")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="HOST",
    shell_complete=options.complete_host,
    help="Where to go on: the run's own box at a new address, or another box, to which what is home of the run is sent. "
    "Several times: on these boxes together.",
)
@click.option(
    "--code",
    type=click.Choice(["run", "here"]),
    help="The code that the run had (by default on another box), or what is in the job's folder now (by default on its own box).",
)
@options.engine_option(
    "With --host of another host: as for submit. On its own host a run keeps the engine that it has."
)
@options.json_option
def command(
    run: str | None,
    checkpoint: str,
    everything: bool,
    dry_run: bool,
    overrides: tuple[str, ...],
    hosts: tuple[str, ...],
    code: Literal["run", "here"] | None,
    engine: str,
    as_json: bool,
) -> None:
    """Continue from the last good checkpoint, as a new run.

    A program of your own finds copies of the old outputs at their places. The
    variable GPURUN_RESUME is the path of the newest complete checkpoint there,
    or of the one that you name (auto where gpurun recognises none).

    The old run's record, log and outputs stay as they are. Exits with 10 if the new run fails within its first moment.

    After a restart of the box or its container, --all starts its runs again in their old order: those that ran, each from its last
    good checkpoint, then those that waited. Each starts once, however often this is typed. A run whose code, data or environment is
    not there any more stays, and it is said what is missing; then the exit code is 5.

    Runs of a sweep whose box is gone (it cannot be reached, or is another one now) go on at --host too: from what is home of them, or
    from the beginning. Where such a box still runs them after all, they run twice, which gpurun cannot see.
    """
    host = hosts[0] if hosts else None
    if len(hosts) > 1 and (everything or dry_run):
        raise click.UsageError("--all takes one --host: the box that was restarted")
    if everything or dry_run:
        return _all(
            run, host, dry_run and not everything, dry_run, bool(overrides or code or checkpoint != "auto"), as_json
        )
    from runner import store
    from runner.cli.submit import show_started
    from runner.workflow.observing.status import failures_of
    from runner.workflow.resume import resume

    report = output.reporter(as_json)
    earlier = store.find_started(run)
    if len(hosts) > 1 or (not hosts and earlier.others):
        from runner.workflow.several_boxes.members import hosts_of
        from runner.workflow.several_boxes.resume import resume_on_several

        on = hosts or hosts_of(earlier)
        new = resume_on_several(earlier, on, report, checkpoint=checkpoint, overrides=overrides, code=code)
    else:
        overrides += ("resources.boxes=1",) if earlier.others else ()
        new = resume(earlier, report, checkpoint=checkpoint, overrides=overrides, host=host, code=code, engine=engine)
    if as_json:
        from runner.cli.as_document.runs import run_document

        output.print_document(run_document(new))
        sys.exit(max((error.exit_code for error in failures_of([new])), default=0))
    show_started(new, report)
    for error in failures_of([new]):
        raise error


def _all(run: str | None, host: str | None, alone: bool, dry_run: bool, more: bool, as_json: bool) -> None:
    if alone:
        raise click.UsageError("--dry-run goes with --all")
    from runner.cli.recovering import start_again
    from runner.workflow.each_host import in_turn
    from runner.workflow.sweeping.find import as_sweep

    report = output.reporter(as_json)
    sweep = as_sweep(run)
    if more or (run and sweep is None):
        raise click.UsageError("--all takes every run as it was: no RUN but a sweep, no --checkpoint, --set or --code")
    if sweep is not None:
        members = {each.run_id: each for part in sweep.parts for each in part.runs if each.may_be_there}
        hosts = [host] if host else list(dict.fromkeys(each.host for each in members.values()))
        answers = in_turn(
            hosts, lambda each: start_again(each, dry_run, report, as_json, members, take_over=bool(host))
        )
    elif host is None:
        raise click.UsageError("--all needs --host, the box that was restarted, or a sweep")
    else:
        answers = in_turn([host], lambda each: start_again(each, dry_run, report, as_json))
    if sweep is None or not as_json:
        answers.raise_first()
    if as_json:
        found = [document for _, document in answers.given.values()]
        output.print_document({"boxes": found} if sweep else found[0])
    sys.exit(max((code for code, _ in answers.given.values()), default=0) or answers.exit_code)
