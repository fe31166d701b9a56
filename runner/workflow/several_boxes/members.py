"""The boxes of one run while a command has a connection to each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from runner.domain.errors import UserError
from runner.domain.host import Host
from runner.domain.job import Job
from runner.domain.progress import Prefixed, Reporter
from runner.domain.run import Run
from runner.workflow.connect import connect
from runner.workflow.each_host import each_host

if TYPE_CHECKING:
    from runner.transport.link import Link

T = TypeVar("T")


@dataclass(frozen=True)
class Member:
    """One of the boxes: the host as typed, a link to it, and a reporter whose lines begin with its name."""

    host: str
    link: Link
    report: Reporter


def hosts_of(run: Run) -> list[str]:
    """The hosts of a run, by rank."""
    return [run.host, *(other.host for other in run.others)]


def fail_if_hosts_do_not_fit(job: Job, hosts: Sequence[str]) -> None:
    """Raises UserError where a job for several boxes is not given as many hosts."""
    wanted = job.resources.boxes
    if len(set(hosts)) == wanted:
        return
    raise UserError(
        f"{job.name} runs on {wanted} boxes (resources.boxes), and --host gives {len(set(hosts))}",
        meaning="Nothing was contacted.",
        hint=f"Give --host {wanted} times, once for each box, or --set resources.boxes={len(set(hosts))}.",
    )


@contextmanager
def connect_all(
    hosts: Sequence[str], targets: Sequence[Host], report: Reporter, *, strict: bool
) -> Iterator[list[Member]]:
    """A link to each box, all opened at once. Raises the first one's HostError."""
    with ExitStack() as stack:

        def open_one(place: int) -> Member:
            told = Prefixed(report, f"{hosts[place]}: ")
            return Member(hosts[place], stack.enter_context(connect(targets[place], report, strict=strict)), told)

        answers = each_host(range(len(hosts)), open_one)
        answers.raise_first()
        yield [answers.given[place] for place in range(len(hosts))]


def on_each(members: Sequence[Member], work: Callable[[int, Member], T]) -> list[T]:
    """What ``work`` gives for each box (its place in the list, and the box), all at once. Raises the first error once all have ended."""
    answers = each_host(range(len(members)), lambda place: work(place, members[place]))
    answers.raise_first()
    return list(answers.given.values())
