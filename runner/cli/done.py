"""``gpurun done``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from runner.cli import options, output
from runner.cli.audience import confirmed

if TYPE_CHECKING:
    from runner.domain.progress import Reporter
    from runner.domain.run import Run
    from runner.workflow.destroying.destroy import Destruction, Gone
    from runner.workflow.done import Verdict

UNSAFE = 6  # the exit code if the box may not be destroyed yet


@click.command(
    "done",
    epilog="\b\nExamples:\n  gpurun done\n  gpurun done --destroy            if it is safe; gpurun hosts set\n"
    "  gpurun done --give-up 7f3a       nobody needs the results of run 7f3a",
)
@options.run_or_sweep_argument
@click.option(
    "--leave-behind",
    is_flag=True,
    help="Accept the loss of what is never fetched: links out of outputs/, devices, odd names.",
)
@click.option(
    "--give-up",
    multiple=True,
    metavar="RUN",
    shell_complete=options.complete_run,
    help="Accept the loss of another run on the box, or of what was pushed for one. May be repeated.",
)
@click.option(
    "--destroy",
    is_flag=True,
    help="If it is safe, destroy the box with its provider's command, and wait until it is gone.",
)
@click.option("--yes", is_flag=True, help="With --destroy: do not ask.")
@options.moved_host_option
@options.json_option
def command(
    run: str | None,
    leave_behind: bool,
    give_up: tuple[str, ...],
    destroy: bool,
    yes: bool,
    host: str | None,
    as_json: bool,
) -> None:
    """Check whether the box of a run may be destroyed.

    Every run on the box has to be over, with its outputs verified on this machine. Then secrets are wiped from the box. Prints
    "safe to destroy", or what is missing (exit 6). RUN may be a sweep, by its id or its name: every box of it is looked at.

    Runs that other machines submitted count too: their results are not on this machine.

    A box that is only stopped still costs money for its disk: --destroy ends that too. The provider's tool runs on this
    machine; no key of it ever goes to the box.
    """
    from runner.workflow.each_host import Place, by_place, in_turn
    from runner.workflow.sweeping.find import find_started_runs

    if as_json and destroy and not yes:
        raise click.UsageError("with --json nothing is asked: add --yes")
    report = output.reporter(as_json)
    chosen = find_started_runs([run] if run else [])
    if chosen.several and (host or give_up):
        raise click.UsageError("--host and --give-up go with one run, and this is a sweep")
    first_there = {place: runs[0] for place, runs in by_place(chosen.runs).items()}

    def look(place: Place) -> tuple[Verdict, Gone | None]:
        record = options.run_at(first_there[place], host, report)
        return _look(record, report, leave_behind, give_up, destroy, yes, as_json)

    boxes = in_turn(first_there, look)
    if not (as_json and chosen.several):
        boxes.raise_first()
    if as_json:
        from runner import store
        from runner.cli.as_document.files import done_document

        found = [done_document(store.load(verdict.run_id), verdict, gone) for verdict, gone in boxes.given.values()]
        output.print_document({"boxes": found} if chosen.several else found[0])
    unsafe = any(not verdict.safe for verdict, _ in boxes.given.values())
    sys.exit(UNSAFE if unsafe else boxes.exit_code)


def _look(
    record: Run, report: Reporter, leave_behind: bool, give_up: tuple[str, ...], destroy: bool, yes: bool, as_json: bool
) -> tuple[Verdict, Gone | None]:
    """Looks at one box, says what is found, and destroys it where that is wanted and safe."""
    plan = _plan(record) if destroy else None
    verdict = _judge(record, report, leave_behind, give_up)
    if not as_json:
        _show(verdict)
    if plan and verdict.safe and not yes:
        question = f"Run {plan.spoken} now? {plan.host} is lost then."
        if not confirmed(question, "add --yes"):
            report.note("nothing was destroyed")
            return verdict, None
        verdict = _judge(record, report, leave_behind, give_up)  # the answer may have taken a while
        if not verdict.safe:
            _show(verdict)
    gone = _destroy(plan, report) if plan and verdict.safe else None
    return verdict, gone


def _judge(record: Run, report: Reporter, leave_behind: bool, give_up: tuple[str, ...]) -> Verdict:
    from runner.domain.errors import ConnectFailed
    from runner.workflow.done import done

    try:
        return done(record, report, leave_behind=leave_behind, give_up=give_up)
    except ConnectFailed as error:
        from runner.workflow.destroying.destroy import explain_silence

        raise explain_silence(record, error) from None


def _plan(record: Run) -> Destruction:
    from runner.workflow.destroying.destroy import plan_destruction, require_right_box

    plan = plan_destruction(record)
    require_right_box(plan)
    return plan


def _destroy(plan: Destruction, report: Reporter) -> Gone:
    from runner.workflow.destroying.destroy import destroy

    gone = destroy(plan, report)
    if gone.confirmed:
        report.note(f"{plan.host} is gone: it does not answer, and its provider does not list it any more")
    else:
        report.note(
            f"{plan.host} does not answer any more. gpurun cannot ask its provider: a stopped box would cost money"
        )
    return gone


def _show(verdict: Verdict) -> None:
    from runner.domain.quantities import pluralise

    for each in verdict.left_out:
        click.echo(f"left on the box: {each}", err=True)
    if verdict.safe:
        click.echo(
            f"{verdict.host}: {pluralise(len(verdict.fetched), 'run')}, {pluralise(verdict.files, 'file')} home and verified,"
            " logs complete,"
            " no secret left. Safe to destroy."
        )
    else:
        click.echo("NOT safe to destroy:")
        for reason in verdict.reasons:
            output.print_untrusted(f"  {reason}")
