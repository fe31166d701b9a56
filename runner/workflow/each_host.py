"""Work on several boxes at once: one thread a box, and one connection in it. An error of one box does not end the work on the others."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from runner.domain.errors import GpurunError
from runner.domain.progress import Prefixed, Reporter
from runner.domain.run import Run
from runner.workflow.connect import ReconnectingLink, resolve_or_start_host

if TYPE_CHECKING:
    from runner.transport.link import Link

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Place(NamedTuple):
    """Where runs are: the host as typed, and the folder there that holds the root (``Run.volume``). One agent serves one place."""

    host: str
    volume: str | None = None


@dataclass(frozen=True)
class Answers(Generic[K, T]):
    """What the work on each box gave, or the error that ended it there. Each key is in one of the two, in the order asked."""

    given: dict[K, T] = field(default_factory=dict)
    errors: dict[K, GpurunError] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """That of the first box that has an error, 0 without one."""
        return next((error.exit_code for error in self.errors.values()), 0)

    def raise_first(self) -> None:
        """Raises the error of the first box that has one."""
        for error in self.errors.values():
            raise error


def place_of(run: Run) -> Place:
    """Where a run is, by its record."""
    return Place(run.host, run.volume)


def by_place(runs: Iterable[Run]) -> dict[Place, list[Run]]:
    """The runs of each place, both in the order given."""
    found: dict[Place, list[Run]] = {}
    for run in runs:
        found.setdefault(place_of(run), []).append(run)
    return found


def each_host(keys: Iterable[K], work: Callable[[K], T]) -> Answers[K, T]:
    """Calls ``work`` for each key in a thread of its own, and waits for all. ``work`` opens its own connection.

    A GpurunError stands in ``errors``. Any other exception is raised here, once all threads have ended. The threads are daemons: Ctrl-C
    ends the command at once, though a host may still be waited for.
    """
    asked = list(dict.fromkeys(keys))
    if len(asked) == 1:  # no thread: what is shown and raised is the same as for a command about one box
        return in_turn(asked, work)
    ended: queue.SimpleQueue[tuple[K, T | None, BaseException | None]] = queue.SimpleQueue()

    def call(key: K) -> None:
        try:
            ended.put((key, work(key), None))
        except BaseException as error:
            ended.put((key, None, error))

    for key in asked:
        threading.Thread(target=call, args=(key,), name=f"host {key}", daemon=True).start()
    results = {key: (answer, error) for key, answer, error in (ended.get() for _ in asked)}
    return _sorted(asked, results)


def in_turn(keys: Iterable[K], work: Callable[[K], T]) -> Answers[K, T]:
    """The same one after the other in this thread, for work that asks the user."""
    answers: Answers[K, T] = Answers()
    for key in dict.fromkeys(keys):
        try:
            answers.given[key] = work(key)
        except GpurunError as error:
            answers.errors[key] = error
    return answers


def _sorted(asked: list[K], results: dict[K, tuple[T | None, BaseException | None]]) -> Answers[K, T]:
    answers: Answers[K, T] = Answers()
    for key in asked:
        answer, error = results[key]
        if isinstance(error, GpurunError):
            answers.errors[key] = error
        elif error is not None:
            raise error
        else:
            answers.given[key] = answer  # type: ignore[assignment]  # None is an answer too, where T allows it
    return answers


def ask_each_host(
    places: Iterable[Place], ask: Callable[[Place, Link, Reporter], T], report: Reporter
) -> Answers[Place, T]:
    """Calls ``ask`` with a link to each place, all at once. Where a link breaks it is opened again and ``ask`` is called again.

    With several places, what ``ask`` reports begins with the host's name.
    """
    asked = list(dict.fromkeys(places))

    def work(place: Place) -> T:
        told = report if len(asked) == 1 else Prefixed(report, f"{place.host}: ")
        with ReconnectingLink(resolve_or_start_host(*place), report) as connection:
            while True:  # ends with an answer, or with the error that another try does not mend
                with connection.link() as link:
                    return ask(place, link, told)

    return each_host(asked, work)
