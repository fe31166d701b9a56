"""What a box says of the runs that a restart has interrupted, and of those that it has started again."""

from __future__ import annotations

from dataclasses import dataclass

from remote_payload.agent.wire.paths import RUN_ID, SHA256
from runner.domain.answers.reading import Fields, list_of, matching, one_of, optional, text
from runner.domain.answers.status import Status
from runner.domain.answers.verbs import Launched, read_launched

MAX_RUNS = 100_000
MAX_NAMED = 1000


@dataclass(frozen=True)
class InterruptedRun:
    """A run that a restart interrupted. ``missing`` is what nothing on the box can replace; ``environment`` says what is wrong with its
    Python, and ``payload`` is the sha256 of a training package that is gone: both can be mended from here."""

    status: Status
    was: str  # running, or waiting
    successor: str | None  # the run that took its place
    missing: tuple[str, ...]
    environment: str | None
    payload: str | None
    checkpoint: str | None

    @property
    def run_id(self) -> str:
        return self.status.run_id


@dataclass(frozen=True)
class StartedAgain:
    """The run that takes the place of the run ``earlier``, as ``launch`` tells it."""

    earlier: str
    launched: Launched


@dataclass(frozen=True)
class NotRecovered:
    """Why the box did not start a run again."""

    run_id: str
    message: str
    hint: str


@dataclass(frozen=True)
class Recovery:
    """``runs`` are in the order of their turns; ``known`` are the statuses of the runs that were asked for."""

    runs: tuple[InterruptedRun, ...]
    failed: tuple[NotRecovered, ...]
    known: tuple[Status, ...]


def read_recovery(answer: Fields) -> Recovery:
    return Recovery(
        answer("runs", list_of(_interrupted, MAX_RUNS)),
        answer("failed", list_of(_not_recovered, MAX_RUNS)),
        answer("known", list_of(Status.parse, MAX_RUNS)),
    )


def read_started(notice: Fields) -> StartedAgain:
    """From a notice of progress. Raises Impossible."""
    started = notice("started", Fields)
    return StartedAgain(started("earlier", matching(RUN_ID)), read_launched(started))


def _interrupted(value: object) -> InterruptedRun:
    fields = Fields(value)
    return InterruptedRun(
        status=fields("status", Status.parse),
        was=fields("was", one_of(("running", "waiting"))),
        successor=fields("successor", optional(matching(RUN_ID))),
        missing=fields("missing", list_of(text, MAX_NAMED)),
        environment=fields("environment", optional(text)),
        payload=fields("payload", optional(matching(SHA256))),
        checkpoint=fields("checkpoint", optional(text)),
    )


def _not_recovered(value: object) -> NotRecovered:
    fields = Fields(value)
    return NotRecovered(fields("run_id", matching(RUN_ID)), fields("message", text), fields("hint", text))
