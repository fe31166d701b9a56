"""The runs of a box that a restart interrupted, each with what becomes of it: it starts again, went on before, or stays, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runner import store
from runner.domain.answers.recovery import InterruptedRun, NotRecovered, Recovery
from runner.domain.run import Run
from runner.workflow.submission.plan import unset_secrets

STARTED, READY, WENT_ON, STAYS = "started", "ready", "went on", "stays"


@dataclass
class Turn:
    """One interrupted run. ``run`` is this machine's record of it; ``new`` the run that takes its place, once there is a record of one."""

    found: InterruptedRun
    run: Run | None
    new: Run | None = None
    started: bool = False  # by this command
    successor: str | None = None  # the run that took its place before
    why: str = ""  # it stays
    hint: str = ""

    @property
    def run_id(self) -> str:
        return self.found.run_id

    @property
    def what(self) -> str:
        """What becomes of it."""
        return STARTED if self.started else WENT_ON if self.successor else STAYS if self.why else READY

    def stays(self, why: str, hint: str = "") -> None:
        self.why, self.hint = why, hint


@dataclass(frozen=True)
class Records:
    """This machine's runs by id, and the newest of those that continue each."""

    runs: dict[str, Run]
    children: dict[str, Run]

    def unfinished(self, host: str) -> list[Run]:
        """Those that may live on the box at ``host``, as last seen, and new runs that were begun and never confirmed."""
        there = [run for run in self.runs.values() if run.may_be_there and run.host == host]
        begun = [run for run in self.children.values() if not run.launched]
        return list({run.run_id: run for run in (*there, *begun) if not (run.status and run.status.finished)}.values())


def read_records() -> Records:
    runs = {run.run_id: run for run in store.load_all()[0]}
    return Records(runs, {run.parent: run for run in runs.values() if run.parent})


def turns_of(seen: Recovery, records: Records, identity: str, host: str) -> list[Turn]:
    """The turns in their order; what the box has found to be missing, and what this machine knows, decides which run stays."""
    known = {status.run_id: status.cause for status in seen.known}
    turns = [Turn(found, records.runs.get(found.run_id)) for found in seen.runs]
    for turn in turns:
        child = records.children.get(turn.run_id)
        if turn.found.successor:
            turn.successor = turn.found.successor
        elif child is not None and child.launched and known.get(child.run_id) != "not_started":
            turn.successor = child.run_id  # on another box, or deleted there since
        elif child is not None and child.may_be_there and child.host != host:
            turn.successor = child.run_id  # another box was asked to start it, and may have
        elif child is not None and known.get(child.run_id) == "folder_deleted":
            turn.new = child  # a command that was ended half-way had asked for it, and the box never did
        if not turn.successor:
            _decide(turn, identity, host)
    return turns


def _decide(turn: Turn, identity: str, host: str) -> None:
    run = turn.run
    if run is None:
        return turn.stays(
            "another machine started it, and its secrets are there",
            f"On that machine: gpurun resume --all --host '{host}'",
        )
    if run.status is not None and run.status.finished and run.status.outcome not in ("interrupted", "lost"):
        return turn.stays(f"this machine has seen that it was over: {run.status.outcome}")
    if run.box and identity and run.box != identity:
        return turn.stays(
            "the box has another identity than the one that the run was started on: it lost a part of its disk, or this is a copy",
            f"Start it from what is here: gpurun resume {run.run_id}",
        )
    if turn.found.missing:
        return turn.stays(
            "; ".join(turn.found.missing), f"gpurun resume {run.run_id} sends what is missing, and starts it."
        )
    unset = unset_secrets(run.job)
    if unset:
        turn.stays(
            f"secrets that it needs are not set here: {', '.join(unset)}", f"export {unset[0]}=…, then repeat this."
        )


def refuse(turns: Iterable[Turn], failed: Sequence[NotRecovered]) -> None:
    """Notes why the box did not start some of them."""
    reasons = {each.run_id: each for each in failed}
    for turn in turns:
        reason = reasons.get(turn.run_id)
        if reason is not None and not turn.started:
            turn.stays(reason.message, reason.hint or "Repeat the command when that is mended.")
