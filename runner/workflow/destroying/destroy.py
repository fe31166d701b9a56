"""Destroying a rented box with its provider's own tool, which runs on this machine; then the box is watched until it is gone.

The tool's exit code is not believed: it can end well though nothing happens. A box is gone when it does not answer any more and, where the
provider can be asked, when its list of boxes does not have it. A box that is only stopped still costs money.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from runner.domain.errors import ConnectFailed, HostError, Interrupted, UserError
from runner.domain.host import Host
from runner.domain.progress import Reporter, Stage
from runner.domain.providers import Instance, Listed, command_for_box, find_in_list, has_address, instance_of_command
from runner.domain.run import Run
from runner.host_notes import host_notes
from runner.transport.answering import answers
from runner.workflow.connect import host_of
from runner.workflow.destroying.provider_tool import Ended, run_tool
from runner.workflow.hosts import forget

COMMAND_LIMIT = 120.0  # seconds for the command that destroys
QUESTION_LIMIT = 60.0  # for one that only asks
GONE_LIMIT = 300.0  # until the box is gone
PAUSE = 5.0  # between two looks
SILENT_TIMES = 3  # looks in a row without an answer, where nobody else can be asked: one may be this machine's network


@dataclass(frozen=True)
class Destruction:
    """What would destroy the box of a run; ``instance`` where the provider can be asked about it too."""

    host: Host
    command: tuple[str, ...]
    instance: Instance | None
    told_by_box: bool = False  # the id is what the box says of itself, and was not noted by the user

    @property
    def spoken(self) -> str:
        return " ".join(self.command)


@dataclass(frozen=True)
class Gone:
    """The box does not answer any more. ``confirmed``: its provider's list does not have it either."""

    confirmed: bool


def plan_destruction(run: Run) -> Destruction:
    """Which command destroys the box of this run: the noted one, else that of the provider that the box says it is from.

    Raises UserError where none is known.
    """
    host, note = host_of(run), host_notes().get(run.host)
    if note is not None and note.destroy:
        return Destruction(host, note.destroy, instance_of_command(note.destroy))
    command = command_for_box(note.provider or "", note.instance or "") if note is not None else None
    if command is None:
        raise UserError(
            f"it is not known which command destroys {run.host}",
            meaning="Nothing was destroyed.",
            hint=f"Note it once, without any key in it: gpurun hosts set '{run.host}' --destroy 'vastai destroy instance ID'",
        )
    return Destruction(host, command, instance_of_command(command), told_by_box=True)


def require_right_box(plan: Destruction) -> None:
    """Asks the provider whether it has the box; and where, if only the box has named its id. Raises HostError unless it is this one."""
    if plan.instance is None:
        return
    if not plan.told_by_box:
        listed = _ask(plan)
        if listed is not None and not listed.there:
            raise HostError(
                f"the list of your boxes does not have {plan.instance.id} ({' '.join(plan.instance.listing)})",
                meaning="Nothing was destroyed.",
                hint=f"Correct the id, or log in to the right account: gpurun hosts set '{plan.host.typed}' --destroy COMMAND",
            )
        return
    asked = run_tool(plan.instance.details, QUESTION_LIMIT)
    if asked.code != 0 or not has_address(plan.instance, asked.out, plan.host):
        what = "could not be asked" if asked.code != 0 else "does not have that box at this address"
        raise HostError(
            f"{plan.host} calls itself {plan.instance.id}, and its provider {what} ({' '.join(plan.instance.details)})",
            meaning="Nothing was destroyed: a box can name another one of yours.",
            hint=f"If the id is right, note it: gpurun hosts set '{plan.host.typed}' --destroy '{plan.spoken}'",
        )


def destroy(plan: Destruction, report: Reporter) -> Gone:
    """Runs the command, and watches the box until it is gone. Raises HostError where it is not, saying what is known of it."""
    try:
        with report.stage(plan.spoken):
            ended = run_tool(plan.command, COMMAND_LIMIT, plan.instance.answer if plan.instance else b"")
        with report.stage("wait until the box is gone") as stage:
            gone = _await_end(plan, ended, stage)
    except KeyboardInterrupt:
        raise Interrupted(
            f"{plan.spoken} was started, and it is not known whether {plan.host} is gone: look at your provider's console. It costs money"
            " until then."
        ) from None
    if gone.confirmed:  # another box may get this address, and the command would name one that is gone
        forget(plan.host.typed)
    return gone


def explain_silence(run: Run, error: ConnectFailed) -> ConnectFailed:
    """The error for a box that does not answer, with what its provider's list says of it, where that can be asked."""
    try:
        plan = plan_destruction(run)
        listed = _ask(plan)
    except (UserError, HostError):  # no command is known, or the tool is not here
        return error
    if listed is None:
        return error
    if not listed.there:
        meaning = "Your provider's list of your boxes does not have it any more."
        return ConnectFailed(error.message, meaning=meaning, hint="gpurun list shows which of its runs were fetched.")
    state = (
        "stopped, and its disk still costs money" if listed.stopped else f"{listed.state or 'listed'}, and costs money"
    )
    return ConnectFailed(
        error.message,
        meaning=f"Its provider says that it is {state}.",
        hint=f"Start it to bring home what lies on it, or give that up: {plan.spoken}",
    )


def _await_end(plan: Destruction, ended: Ended, stage: Stage) -> Gone:
    """Looks until the box is gone; only once where the command has failed, since nothing will change then."""
    until = time.monotonic() + (GONE_LIMIT if ended.code == 0 else 0)
    silent = 0
    while True:
        answering, listed = answers(plan.host), _ask(plan)
        silent = 0 if answering else silent + 1
        if not answering and listed is not None and not listed.there:
            return Gone(confirmed=True)
        if ended.code == 0 and silent >= SILENT_TIMES and listed is None:
            return Gone(confirmed=False)
        if time.monotonic() >= until:
            raise _still_there(plan, ended, answering, listed)
        stage.update(note="it answers" if answering else "it does not answer")
        time.sleep(PAUSE)  # nothing tells of the end of a box: it can only be looked for


def _ask(plan: Destruction) -> Listed | None:
    """What the provider's list says; None where it cannot be asked."""
    if plan.instance is None:
        return None
    asked = run_tool(plan.instance.listing, QUESTION_LIMIT)
    return find_in_list(plan.instance, asked.out) if asked.code == 0 else None


def _still_there(plan: Destruction, ended: Ended, answering: bool, listed: Listed | None) -> HostError:
    how = {0: "ended well", None: f"did not end within {COMMAND_LIMIT:.0f} s and was stopped"}
    command = f"{plan.spoken} {how.get(ended.code, f'ended with {ended.code}')}"
    if answering:
        state = "still answers, and costs money"
    elif listed and listed.stopped:
        state = "is stopped and not destroyed: its disk still costs money"
    elif listed and listed.there:
        state = f"does not answer, and is still in your provider's list ({listed.state or 'no state'}): it costs money"
    else:
        state = "does not answer, and it is not known whether it is gone: it may still cost money"
    return HostError(
        f"{command}, and {plan.host} {state}{ended.said()}",
        meaning="What was fetched is on this machine; nothing else was changed.",
        hint="Look at your provider's console, or repeat the command there.",
    )
