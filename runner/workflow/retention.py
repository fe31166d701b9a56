"""Which runs of an experiment stay on a box: the first of each submission that succeeded and are complete."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from remote_payload.agent.wire.retention import Complete, first_to_finish
from runner.domain.answers.holdings import Held
from runner.domain.run import Run, stamp_of
from runner.domain.sweep import repeats_of
from runner.workflow.fetching.fetched_state import FetchedState

ONE_SUBMISSION = 60.0  # seconds between two records of one submission, for records that do not name theirs


@dataclass(frozen=True)
class Decision:
    """Whether one run of an experiment may be deleted (``goes``), and why. A ``group`` was submitted together, with equal settings."""

    run_id: str
    group: str
    goes: bool
    why: str


@dataclass(frozen=True)
class Candidate:
    """A run of the experiment as the box has it now; ``home`` is None while it is going."""

    run: Run
    held: Held
    fetched: FetchedState | None

    @property
    def complete(self) -> bool:
        """Whether it succeeded and has what it promised."""
        promised = self.run.job.recipe or self.run.job.outputs
        return self.held.status.outcome == "succeeded" and bool(not promised or (self.fetched and self.fetched.files))


def decide_retention(candidates: Iterable[Candidate], keep: int, named: Collection[str]) -> list[Decision]:
    """Of each group the first ``keep`` complete runs to finish stay. The others may be deleted when they were fetched, or were named."""
    found = []
    for group, members in _groups(candidates).items():
        whole = [each for each in members if each.complete and each.run.run_id not in named]
        ended = [Complete(each.run.run_id, each.held.status.ended_at or 0.0) for each in whole]
        best = {run_id: place for place, run_id in enumerate(first_to_finish(ended, keep), 1)}
        for each in members:
            goes, why = _decided(each, best.get(each.run.run_id), each.run.run_id in named)
            found.append(Decision(each.run.run_id, group, goes, why))
    return found


def _decided(each: Candidate, place: int | None, named: bool) -> tuple[bool, str]:
    status = each.held.status
    if each.fetched is None:
        return False, f"it is not over ({status.phase})" if not status.finished else "processes of it are left"
    if named:
        return True, "named"
    if place:
        return False, "the first that is complete" if place == 1 else f"complete, the {place}. to finish"
    if reasons := each.fetched.reasons():
        return False, f"{reasons[0]}, or name it to delete it all the same"
    return True, f"{status.outcome}, and home"


def _groups(candidates: Iterable[Candidate]) -> dict[str, list[Candidate]]:
    """By submission and settings, in the order of submission. A run that differs in more than its seed is not a repeat."""
    members: dict[tuple[str, str], list[Candidate]] = {}
    submission, last = "", float("-inf")
    for each in sorted(candidates, key=lambda each: each.run.created_at):
        if each.run.created_at - last > ONE_SUBMISSION:
            submission = each.run.run_id
        last = each.run.created_at
        members.setdefault((each.run.submission or submission, repeats_of(each.run.job)), []).append(each)
    titled: dict[str, list[Candidate]] = {}
    for group in members.values():
        title = f"{group[0].run.experiment}, submitted {stamp_of(group[0].run.run_id)}"
        while title in titled:
            title += ", other settings"
        titled[title] = group
    return titled
