"""Whether the box may be destroyed: every run on it is over and fetched, no push waits there, and no secret is left.

Everything on the box counts, also from other machines: a run that this machine has no record of is a reason against it.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from runner import store
from runner.domain.answers.holdings import Held, Holdings
from runner.domain.answers.manifest import LeftOut
from runner.domain.errors import LaunchError, UserError
from runner.domain.host import Host
from runner.domain.progress import Reporter
from runner.domain.run import Run, matching
from runner.domain.terminal import clean
from runner.transport.link import Link
from runner.workflow.connect import connect_to_run
from runner.workflow.fetching.fetched_state import AT_ONCE, FetchedState, compare_with_local, list_holdings
from runner.workflow.observing.status import not_there


@dataclass
class Verdict:
    """``safe`` when ``reasons`` is empty; each reason says what is missing and what to type. ``fetched`` says what is here, by run."""

    run_id: str
    host: str
    reasons: list[str] = field(default_factory=list)
    fetched: dict[str, FetchedState] = field(default_factory=dict)
    given_up: tuple[str, ...] = ()

    @property
    def safe(self) -> bool:
        return not self.reasons

    @property
    def files(self) -> int:
        return sum(state.files for state in self.fetched.values())

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        return tuple(each for state in self.fetched.values() for each in state.left_out)


def done(run: Run, report: Reporter, *, leave_behind: bool = False, give_up: tuple[str, ...] = ()) -> Verdict:
    """Looks at every run on the run's box, its outputs and logs here and there, at pushes that wait, processes and secrets.

    ``leave_behind`` says that what cannot be fetched (links, odd names) may go with the box, ``give_up`` that these runs
    may, and what waits under their names. Raises RunLost when the box does not know the run, UserError for a name of
    ``give_up`` that is not there.
    """
    known = {record.run_id: record for record in store.load_all()[0]}
    for other in run.others:
        report.warn(
            f"{other.host} had a part in {run.run_id} too, and is not looked at: what was written there alone goes with it"
        )
    with connect_to_run(run, report) as link:
        box = list_holdings(link, report)
        unread = _out_of_sight(box, known, link.host)
        seen = box.run(run.run_id) is not None or run.run_id in box.homeless or run.run_id in unread
        if not seen and not run.done:
            raise not_there(run)
        verdict = Verdict(run.run_id, str(link.host), given_up=_named(box, unread, give_up))
        first_asked = sorted(box.runs, key=lambda held: held.run_id != run.run_id)
        over = [held for held in first_asked if not held.going]
        kept = [held for held in over if held.run_id not in verdict.given_up]
        verdict.fetched = compare_with_local(
            link, [(known[held.run_id], held) for held in kept if held.run_id in known]
        )
        for held in first_asked:
            verdict.reasons += _reasons(held, known.get(held.run_id), verdict, leave_behind)
        verdict.reasons += _waiting(box, known, verdict)
        verdict.reasons += [
            f"{run_id} was started on this box and is not home, and where it lies cannot be seen ({why}): make that folder readable, or"
            f" give it up: gpurun done {run.run_id} --give-up {run_id}"
            for run_id, why in unread.items()
            if run_id not in verdict.given_up
        ]
        verdict.reasons += _wiped(link, over)
    _remember_ends(over, known)
    for state in verdict.fetched.values():
        if not state.reasons(leave_behind):
            store.update(known[state.run_id], done=True)
    return verdict


def _remember_ends(over: list[Held], known: dict[str, Run]) -> None:
    """Notes in this machine's records how the runs ended that were not known to be over."""
    for held in over:
        record = known.get(held.run_id)
        if record is not None and not (record.status and record.status.finished):
            store.update(record, status=held.status, status_at=time.time())


def _out_of_sight(box: Holdings, known: dict[str, Run], host: Host) -> dict[str, str]:
    """The runs of this machine's records that were started at this address, are not home, and lie below a root that cannot be listed.

    A volume is not mounted, or the folder is another user's: the reason, by run id.
    """
    listed = {held.run_id for held in box.runs} | set(box.homeless)
    return {
        record.run_id: f"{record.root}: {box.unread[record.root]}"
        for record in known.values()
        if record.root in box.unread
        and record.run_id not in listed
        and record.may_be_there
        and not (record.fetched_at or record.done)
        and record.address.rpartition("@")[2] == str(host).rpartition("@")[2]
    }


def _named(box: Holdings, unread: Collection[str], names: tuple[str, ...]) -> tuple[str, ...]:
    """The ids (or names under incoming/) that are meant. Raises UserError for one that is not on the box, or not one."""
    pushed = {push.run_id or push.name for push in box.pushes}
    there = {held.run_id for held in box.runs} | pushed | set(box.homeless) | set(unread)
    found = []
    for name in names:
        fitting = matching(name, sorted(there))
        if len(fitting) != 1:
            shown = ", ".join(clean(each, 80) for each in fitting[:5] or sorted(there)[:5])
            raise UserError(
                f"--give-up {name}: "
                + (f"fits {len(fitting)} runs" if fitting else "nothing of that name is on the box"),
                meaning="Nothing was given up.",
                hint=f"There: {shown}" if shown else "",
            )
        found.append(fitting[0])
    return tuple(found)


def _reasons(held: Held, record: Run | None, verdict: Verdict, leave_behind: bool) -> list[str]:
    run_id, give_up = held.run_id, f"give it up: gpurun done {verdict.run_id} --give-up {held.run_id}"
    if record is None:
        if run_id in verdict.given_up or (held.status.cause == "not_started" and not held.status.log_size):
            return []  # a claim that started nothing holds nothing
        state = f"is going ({held.status.phase})" if held.going else "is on the box"
        return [
            f"{run_id} {state}, and this machine has no record that it is home: fetch it where it was submitted, or {give_up}"
        ]
    if not held.status.finished:
        return [
            f"{run_id} is still going ({held.status.phase}): gpurun logs {run_id} -f waits for its end, gpurun stop {run_id} ends it"
        ]
    if held.left:
        return [f"processes of {run_id} are left, {held.left[0]} among them: gpurun stop {run_id} ends them"]
    return [] if run_id in verdict.given_up else verdict.fetched[run_id].reasons(leave_behind)


def _waiting(box: Holdings, known: dict[str, Run], verdict: Verdict) -> list[str]:
    """Pushes of runs that were not started, and runs that live without a folder."""
    reasons = []
    for push in box.pushes:
        name = push.run_id or push.name
        if name not in verdict.given_up:
            record = known.get(name)
            start = f"start it ({record.how_to_start}), or " if record else "another machine may be about to start it; "
            reasons.append(
                f"what was pushed for {clean(name, 80)} waits on the box, and it never started: {start}"
                f"give it up: gpurun done {verdict.run_id} --give-up {clean(name, 80)}"
            )
    for run_id, left in box.homeless.items():
        if run_id in known or run_id not in verdict.given_up:
            who = f" ({left[0]})" if left else ""
            end = f"gpurun stop {run_id} ends it" if run_id in known else "it can be ended where it was submitted"
            reasons.append(f"{run_id} lives on the box without a folder of its own{who}: {end}")
    return reasons


def _wiped(link: Link, over: list[Held]) -> list[str]:
    """Removes the secrets of these runs that are still there; a reason for each run where that is not certain."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [reason for reason in pool.map(lambda held: _wipe(link, held.run_id), over) if reason]


def _wipe(link: Link, run_id: str) -> str | None:
    try:
        left = link.agent.wipe(run_id)
    except LaunchError as error:
        return f"{clean(error.message)}: {clean(error.hint)}"
    return f"secrets of {run_id} are still on the box: {clean(', '.join(left))}" if left else None
