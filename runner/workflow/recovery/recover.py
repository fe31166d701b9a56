"""``gpurun resume --all``: starts again what a restart of a box has interrupted, in the old order and once each.

Two requests: what was interrupted and what it needs, then the new starts. The records of the new runs are on this disk before the box hears
of them; the box gives each place in the line to one run only. So a command that was ended anywhere is typed again, and does the rest.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from runner import store
from runner.domain.answers.recovery import Recovery, StartedAgain
from runner.domain.errors import GpurunError, StartedElsewhere
from runner.domain.progress import Reporter
from runner.domain.requests import Wish
from runner.domain.run import Run, mint_id
from runner.transport.link import Link
from runner.workflow.connect import ReconnectingLink, resolve_or_start_host
from runner.workflow.observing.follow import remember_status
from runner.workflow.recovery.mend import mend_environments, mend_payloads
from runner.workflow.recovery.turns import READY, Records, Turn, read_records, refuse, turns_of
from runner.workflow.submission.access import Tokens
from runner.workflow.submission.launch import confirm_start
from runner.workflow.submission.plan import secrets_of

TOKEN = "HF_TOKEN"


def recover(typed: str, report: Reporter, *, dry_run: bool = False, only: Collection[str] | None = None) -> list[Turn]:
    """Every run of the box that a restart interrupted, in the order of their turns, after all that can be started again was started.

    ``only`` are the ids of those to look at. With ``dry_run`` nothing is started or changed on the box. A link that breaks is opened again,
    and the rest goes on. Raises HostError, and LaunchError where another gpurun does the same.
    """
    started: dict[str, Run] = {}
    tokens = Tokens(report)
    turns: list[Turn] | None = None
    with ReconnectingLink(resolve_or_start_host(typed), report) as connection:
        while turns is None:
            with connection.link() as link:
                turns = _once(link, typed, report, tokens, dry_run, started, only)
    for turn in turns:
        if turn.run_id in started:  # perhaps over a link that broke afterwards
            turn.new, turn.started, turn.successor = started[turn.run_id], True, None
    return turns


def _once(
    link: Link,
    typed: str,
    report: Reporter,
    tokens: Tokens,
    dry_run: bool,
    started: dict[str, Run],
    only: Collection[str] | None,
) -> list[Turn]:
    records = read_records()
    with report.stage("look for interrupted runs") as stage:
        asked = [run.run_id for run in records.unfinished(typed)]
        seen = link.agent.recover({"start": [], "secrets": {}, "known": asked})
        stage.update(note=f"{len(seen.runs)} found")
    turns = turns_of(seen, records, link.agent.identity, typed)
    _remember(link, typed, seen, records, turns)
    turns = [turn for turn in turns if only is None or turn.run_id in only]
    if dry_run:
        return turns
    _discard_passed_over(link, seen, records, turns)
    mend_payloads(link, [turn for turn in turns if turn.what == READY], report)
    interpreters = mend_environments(link, [turn for turn in turns if turn.what == READY], report)
    secrets = _secrets(turns, tokens)
    ready = [turn for turn in turns if turn.what == READY]
    if ready:
        _start(link, typed, ready, interpreters, secrets, report, started)
    return turns


def _remember(link: Link, typed: str, seen: Recovery, records: Records, turns: Sequence[Turn]) -> None:
    """Brings the records up to date: interrupted runs, also those that were started at another address of this box; other runs that are
    over; and new runs of an earlier try, which the box has started without our hearing of it."""
    for status in seen.known:
        run = records.runs[status.run_id]
        if status.cause != "folder_deleted":
            remember_status(run, status)
            if not run.launched and status.cause != "not_started":
                confirm_start(link, run)
        elif run.launched:
            remember_status(run, status)
    for turn in turns:
        if turn.run is not None and not (turn.run.box and link.agent.identity and turn.run.box != link.agent.identity):
            if turn.run.host != typed:
                host = link.host
                store.update(turn.run, host=typed, address=str(host), volume=link.agent.volume, root=link.agent.root)
            remember_status(turn.run, turn.found.status)


def _discard_passed_over(link: Link, seen: Recovery, records: Records, turns: Sequence[Turn]) -> None:
    """Removes the records of new runs that an ended command had made, where another gpurun took the place that they were to take: the box
    starts none of them any more. A record that ``gpurun resume RUN`` made names no box before its start, and stays."""
    unknown = {status.run_id for status in seen.known if status.cause == "folder_deleted"}
    successors = {turn.run_id: turn.successor for turn in turns if turn.successor}
    for run in records.runs.values():
        taken_by = successors.get(run.parent or "", run.run_id)
        if run.launched or taken_by == run.run_id or not run.box or run.box != link.agent.identity:
            continue
        if run.attempted and run.run_id in unknown:
            store.discard(run.run_id)
        elif not run.attempted:
            store.discard_untried(run.run_id)


def _secrets(turns: Sequence[Turn], tokens: Tokens) -> dict[str, dict[str, str]]:
    """The secrets of each run that can start; one whose models may not be read stays."""
    found = {}
    for turn in turns:
        if turn.run is None or turn.what != READY:
            continue
        try:
            token = tokens.of(turn.run.job)
            found[turn.run_id] = {**secrets_of(turn.run.job), **({TOKEN: token} if token else {})}
        except GpurunError as error:
            turn.stays(error.message, error.hint)
    return found


def _start(
    link: Link,
    typed: str,
    ready: Sequence[Turn],
    interpreters: dict[str, str],
    secrets: dict[str, dict[str, str]],
    report: Reporter,
    started: dict[str, Run],
) -> None:
    wishes: list[Wish] = []
    by_id = {turn.run_id: turn for turn in ready}
    for turn in ready:
        new = turn.new = _take_place(turn, typed, link)
        if new is None:
            continue
        names = list(secrets[turn.run_id])
        wishes.append(
            {
                "earlier": turn.run_id,
                "run_id": new.run_id,
                "secrets": names,
                "interpreter": interpreters.get(turn.run_id),
            }
        )
    values = {name: value for each in secrets.values() for name, value in each.items()}

    def confirm(answer: StartedAgain) -> None:
        turn = by_id[answer.earlier]
        assert turn.new is not None
        turn.new.code = answer.launched.code
        remember_status(turn.new, answer.launched.status)
        confirm_start(link, turn.new)
        turn.started, started[turn.run_id] = True, turn.new
        stage.update(note=f"{len(started)} of {len(ready)}")

    with report.stage("start them again") as stage:
        after = link.agent.recover({"start": wishes, "secrets": values, "known": []}, confirm)
    refuse(ready, after.failed)
    successors = {found.run_id: found.successor for found in after.runs}
    for turn in ready:
        if not turn.started and turn.new is not None:
            turn.successor = successors.get(turn.run_id)  # another gpurun was quicker
            if turn.successor != turn.new.run_id and turn.run is not None:
                store.give_place_back(turn.run, turn.new, refused=True)


def _take_place(turn: Turn, typed: str, link: Link) -> Run | None:
    """The run that takes the place, in its record as asked for on this box; None where another box was asked to start it."""
    assert turn.run is not None
    new = store.take_place(turn.run, turn.new or _new_run(turn.run, typed, link))
    try:
        if store.send_to(new, typed):
            store.note_attempt(new, new.data)
            return new
    except StartedElsewhere:
        pass
    turn.successor = new.run_id
    return None


def _new_run(run: Run, typed: str, link: Link) -> Run:
    return Run(
        run_id=mint_id(run.job.name),
        job=run.job,
        host=typed,
        created_at=time.time(),
        volume=link.agent.volume,
        engine=run.engine,
        box=link.agent.identity or None,  # it takes a place on this box, and can be started nowhere else
        data=run.data,
        parent=run.run_id,
        experiment=run.experiment,
        submission=run.submission,
    )
