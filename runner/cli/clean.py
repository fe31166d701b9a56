"""``gpurun clean``."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from runner.cli import options, output
from runner.cli.audience import confirmed

if TYPE_CHECKING:
    from runner.cli.documents import hosts as documents
    from runner.domain.answers.verbs import Cleaned
    from runner.workflow.clean import Choice


@click.command(
    "clean",
    epilog="\b\nExamples:\n  gpurun clean --host root@box          shows what would be deleted, then asks\n"
    "  gpurun clean --host root@box --yes\n  gpurun clean --host root@box RUN      this run too, fetched or not\n"
    "  gpurun clean --host root@box --experiment mayors --keep 1\n"
    "  gpurun clean 3fa9c210 --keep 1        a sweep, on each of its boxes\n"
    "  gpurun clean --not-started            records of runs that never started",
)
@click.argument("runs", nargs=-1, metavar="[RUN...]", shell_complete=options.complete_run_or_sweep)
@options.host_option(required=False)
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@click.option(
    "--all", "everything", is_flag=True, help="Environments, data and caches too, even if a later run could use them."
)
@click.option(
    "--experiment",
    metavar="NAME",
    help="The fetched runs of an experiment. Of each submission, the first --keep complete runs stay.",
)
@click.option(
    "--keep",
    type=options.Count("runs"),
    default=1,
    show_default=True,
    help="With --experiment or a sweep: how many runs of each experiment stay on a box.",
)
@click.option(
    "--not-started", is_flag=True, help="The records on this machine of runs that no box has; no box is asked."
)
@options.json_option
def command(
    runs: tuple[str, ...],
    host: str | None,
    dry_run: bool,
    yes: bool,
    everything: bool,
    experiment: str | None,
    keep: int,
    not_started: bool,
    as_json: bool,
) -> None:
    """Delete old runs and unused files of gpurun on a box.

    RUN may be a sweep, by its id or its name: on each of its boxes the first --keep runs of each experiment that are complete stay, and the
    others may go once they are home.

    Never deletes a live run, files that gpurun did not make, or results that are not on this machine, except those of a RUN
    that is given.
    """
    from runner import store
    from runner.workflow.each_host import in_turn
    from runner.workflow.sweeping.find import as_sweep

    if as_json and not (yes or dry_run):
        raise click.UsageError("with --json nothing is asked: add --dry-run or --yes")
    sweep = as_sweep(runs[0]) if len(runs) == 1 else None
    how = _How(dry_run, yes, everything, as_json)
    if not_started:
        return _remove_records(runs, host or experiment, how)
    if sweep is None:
        where = host or store.find(runs[0] if runs else None).host
        found = _clean(where, how, names=runs, experiment=experiment, keep=keep)
        return output.print_document(found) if as_json else None
    if experiment:
        raise click.UsageError("give a sweep or --experiment, not both")
    members = [run for part in sweep.parts for run in part.runs if run.may_be_there]
    hosts = [host] if host else list(dict.fromkeys(run.host for run in members))
    ids = {run.run_id for run in members}
    boxes = in_turn(hosts, lambda where: _clean(where, how, sweep=ids, keep=keep))
    if not as_json:
        return boxes.raise_first()
    output.print_document({"boxes": list(boxes.given.values())})
    sys.exit(boxes.exit_code)


def _remove_records(names: tuple[str, ...], of_a_box: str | None, how: _How) -> None:
    """Removes the records of runs that never started, where that is confirmed."""
    from runner.domain.quantities import pluralise
    from runner.workflow.clean import never_started, remove_records

    if of_a_box:
        raise click.UsageError("--not-started is about this machine: leave --host and --experiment out")
    runs = never_started(names)
    if not how.as_json:
        for run in runs:
            output.print_untrusted(
                f"{run.run_id}  {run.why_not_started.partition(chr(10))[0] or 'its submission was cut off'}"
            )
        click.echo(f"{pluralise(len(runs), 'record')} of runs that never started may go.")
    question = "Remove them from this machine?"
    wanted = bool(runs) and not how.dry_run and (how.yes or confirmed(question, "add --yes, or --dry-run"))
    removed = remove_records(runs) if wanted else [run.run_id for run in runs]
    if how.as_json:
        return output.print_document({"dry_run": how.dry_run, "removed": removed})


@dataclass(frozen=True)
class _How:
    dry_run: bool
    yes: bool
    everything: bool
    as_json: bool


def _clean(
    where: str,
    how: _How,
    *,
    keep: int,
    names: tuple[str, ...] = (),
    experiment: str | None = None,
    sweep: Collection[str] = (),
) -> documents.Clean:
    """Shows what may go on one box, and deletes it where that is confirmed."""
    from runner.cli.as_document.hosts import clean_document
    from runner.domain.quantities import format_size
    from runner.workflow.clean import clean_box

    report = output.reporter(how.as_json)

    def confirm(choice: Choice, found: Cleaned) -> bool:
        """Shows what would be deleted, and returns whether to delete it."""
        if not how.as_json:
            _show(choice, found)
        return (
            bool(found.removed or choice.code.digests)
            and not how.dry_run
            and (how.yes or confirmed("Delete them on the box?", "add --yes, or --dry-run"))
        )

    choice, found, deleted = clean_box(
        where, report, confirm, names=names, experiment=experiment, keep=keep, sweep=sweep, everything=how.everything
    )
    if deleted:
        report.note(f"deleted {format_size(found.bytes)}")
    return clean_document(where, choice, found, dry_run=how.dry_run)


def _show(choice: Choice, found: Cleaned) -> None:
    from runner.domain.quantities import format_size

    group = ""
    for each in choice.decided:
        if each.group != group:
            group = each.group
            output.print_untrusted(group)
        output.print_untrusted(f"  {'may go' if each.goes else 'stays':>10}  {each.run_id}  {each.why}")
    for item in found.removed:
        output.print_untrusted(f"  {format_size(item.bytes):>10}  {item.path}")
    for item in found.kept if not choice.decided else ():
        output.print_untrusted(f"  {'kept':>10}  {item.path}  {item.why}")
    if choice.code.digests:
        kept = f"copies of code on this machine ({len(choice.code.digests)}): their runs are done"
        click.echo(f"  {format_size(choice.code.bytes):>10}  {kept}")
    things = "thing" if len(found.removed) == 1 else "things"
    click.echo(f"{len(found.removed)} {things}, {format_size(found.bytes)}, may go.")
