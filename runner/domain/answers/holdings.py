"""Everything of gpurun's on a box, which is lost when the box is destroyed: runs, pushes, living processes."""

from __future__ import annotations

from dataclasses import dataclass

from remote_payload.agent.wire.paths import RUN_ID
from runner.domain.answers.reading import Fields, list_of, matching, optional, text, whole
from runner.domain.answers.root import box_root
from runner.domain.answers.status import Status
from runner.domain.terminal import clean

MAX_RUNS = 100_000


@dataclass(frozen=True)
class Held:
    """One run's folder on the box. ``left`` describes each process of the run that lives."""

    root: str
    status: Status
    left: tuple[str, ...]

    @property
    def run_id(self) -> str:
        return self.status.run_id

    @property
    def going(self) -> bool:
        """Whether the run has not finished, or processes of it live."""
        return not self.status.finished or bool(self.left)


@dataclass(frozen=True)
class Push:
    """Code or data under ``incoming/`` that no run took. ``run_id`` is None where the name holds no run id."""

    root: str
    name: str
    run_id: str | None


@dataclass(frozen=True)
class Holdings:
    """``homeless`` are runs that live although their folder is gone: a description of each process, by run id. ``unread`` are roots that
    cannot be listed, with the reason."""

    runs: tuple[Held, ...]
    pushes: tuple[Push, ...]
    homeless: dict[str, tuple[str, ...]]
    unread: dict[str, str]

    def run(self, run_id: str) -> Held | None:
        return next((held for held in self.runs if held.run_id == run_id), None)

    @classmethod
    def parse(cls, answer: object) -> Holdings:
        """From an agent's answer. Raises Impossible naming the wrong field: an answer that is wrong anywhere proves nothing."""
        fields = Fields(answer)
        homeless = fields("homeless", list_of(_homeless, MAX_RUNS))
        unread = fields("unread", list_of(_unread, MAX_RUNS))
        runs, pushes = fields("runs", list_of(_held, MAX_RUNS)), fields("pushes", list_of(_push, MAX_RUNS))
        return cls(runs, pushes, dict(homeless), dict(unread))


def _held(value: object) -> Held:
    fields = Fields(value)
    return Held(fields("root", box_root), fields("status", Status.parse), fields("left", list_of(_process, MAX_RUNS)))


def _push(value: object) -> Push:
    fields = Fields(value)
    return Push(fields("root", box_root), fields("name", text), fields("run_id", optional(matching(RUN_ID))))


def _homeless(value: object) -> tuple[str, tuple[str, ...]]:
    fields = Fields(value)
    return fields("run_id", matching(RUN_ID)), fields("left", list_of(_process, MAX_RUNS))


def _unread(value: object) -> tuple[str, str]:
    fields = Fields(value)
    return fields("root", box_root), fields("why", text)


def _process(value: object) -> str:
    fields = Fields(value)
    return f"{fields('pid', whole)} ({clean(fields('command', text), 60)})"
