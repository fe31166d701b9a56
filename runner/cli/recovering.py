"""What ``gpurun resume --all`` prints: each interrupted run, in the order of their turns, and what became of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import click

from runner.cli import output

if TYPE_CHECKING:
    from runner.cli.documents import recovery as documents
    from runner.domain.progress import Reporter
    from runner.workflow.recovery.turns import Turn

NOT_STARTED = 5  # the exit code where a run stays that might have gone on: that of LaunchError


def start_again(
    host: str,
    dry_run: bool,
    report: Reporter,
    as_json: bool,
    only: Collection[str] | None = None,
    *,
    take_over: bool = True,
) -> tuple[int, documents.ResumeAll]:
    """Starts the interrupted runs of the box, with ``only`` those of these ids, and shows them; gives the exit code and the document.

    With ``take_over`` those of boxes that are gone go on here too.
    """
    from runner.cli.as_document.recovery import recovery_document
    from runner.workflow.moving.elsewhere import go_on_elsewhere
    from runner.workflow.recovery.recover import recover
    from runner.workflow.recovery.turns import STAYS

    turns = recover(host, report, dry_run=dry_run, only=only)
    if take_over:
        turns += go_on_elsewhere(host, report, interrupted=turns, only=only, dry_run=dry_run)
    if not as_json:
        show(turns, host, dry_run)
    code = NOT_STARTED if any(turn.what == STAYS for turn in turns) else 0
    return code, recovery_document(host, dry_run, turns)


def show(turns: Sequence[Turn], host: str, dry_run: bool) -> None:
    """One line a run, and two for one that stays."""
    from runner.workflow.recovery.turns import READY, STARTED, STAYS

    for turn in turns:
        output.print_untrusted(_line(turn))
        if turn.what == STAYS and turn.hint:
            output.print_untrusted(f"  {turn.hint}")
    if not turns:
        click.echo(f"no run on {host} was interrupted by a restart, and none elsewhere is on a box that is gone")
    count = {what: sum(turn.what == what for turn in turns) for what in (READY, STARTED)}
    if count[STARTED]:
        click.echo(f"next: gpurun logs -f    gpurun list --host '{host}'")
    if dry_run and count[READY]:
        click.echo(f"nothing was started (--dry-run); to start them: gpurun resume --all --host '{host}'")


def _line(turn: Turn) -> str:
    from runner.workflow.recovery.turns import READY, STARTED, WENT_ON

    was = "was running" if turn.found.was == "running" else "waited"
    if turn.what == WENT_ON:
        return f"{turn.run_id} ({was}): went on before, as {turn.successor}"
    if turn.what not in (STARTED, READY):
        return f"{turn.run_id} ({was}): stays: {turn.why}"
    where = f" from {turn.found.checkpoint}" if turn.found.checkpoint else ""
    if turn.what == READY:
        return f"{turn.run_id} ({was}): can start again{where}"
    status = turn.new.status if turn.new else None
    now = (
        "waits for its GPUs"
        if status and status.phase == "prepared"
        else (status.outcome if status else None) or "runs"
    )
    return f"{turn.run_id} ({was}): started again{where} as {turn.new.run_id if turn.new else '?'}, {now}"
