"""Whether boxes can work on one run together: asked of them before anything is pushed, and measured.

Each box listens and connects to all others at each of their addresses. Then each sends data to the next one, all at once, as they do when
gradients are summed. The address at which a box is reached by all others is its seat; the interface that has it is the one that NCCL and
gloo are told to use.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from runner.domain.answers.reach import Interface, Listening, Reached
from runner.domain.errors import BoxNotReady
from runner.domain.progress import Reporter
from runner.domain.requests import PeerRequest
from runner.transport.link import Link
from runner.workflow.each_host import each_host

SECONDS = 0.7  # of data to each address: long enough for TCP to find its speed on a network between boxes
SLOW = 500e6  # bytes a second, 4 Gbit/s: below it a network costs more than it gives for most models
GRADIENTS = 4e9  # bytes that a billion parameters in bf16 send in a step: all-reduce sends about twice what it sums


@dataclass(frozen=True)
class Seat:
    """A box as the others reach it, by its rank: its place in the list of hosts, its address, the interface that has it."""

    place: int
    address: str
    interface: str


@dataclass(frozen=True)
class Meeting:
    """The boxes of a run by rank, and the ports of rank 0: of torchrun's rendezvous, and of the supervisors."""

    seats: tuple[Seat, ...]
    rendezvous: int
    supervisors: int
    latency: float  # seconds there and back, of the slowest pair
    rate: float  # bytes a second, of the slowest way from one box to the next


@dataclass(frozen=True)
class _Heard:
    """What a box told, and what the others have to say to it."""

    told: Listening
    greeting: str
    reply: str

    def peer(self, interface: Interface) -> PeerRequest:
        return {
            "address": interface.address,
            "port": self.told.ports[0],
            "greeting": self.greeting,
            "reply": self.reply,
        }


def meet(links: Sequence[Link], report: Reporter) -> Meeting:
    """How the boxes reach each other. Raises BoxNotReady, with what was tried, where one cannot be reached by all others."""
    with report.stage("network between the boxes") as stage, ExitStack() as stack:
        words = [(secrets.token_hex(16), secrets.token_hex(16)) for _ in links]
        heard = [
            _Heard(stack.enter_context(link.agent.listening(*pair)), *pair)
            for link, pair in zip(links, words, strict=True)
        ]
        reached = _reach_all(links, heard)
        names = [str(link.host) for link in links]
        seats = choose_seats([each.told for each in heard], reached, names)
        rates = _measure(links, heard, seats)
        chosen = [max(options, key=lambda seat: rates[seat]) for options in seats]
        meeting = Meeting(
            seats=tuple(chosen),
            rendezvous=heard[chosen[0].place].told.ports[0],
            supervisors=heard[chosen[0].place].told.ports[-1],
            latency=max(_latency(reached, seat) for seat in chosen),
            rate=min(rates[seat] for seat in chosen),
        )
        stage.update(note=describe(meeting))
    if meeting.rate < SLOW:
        report.warn(
            f"the network between the boxes is slow: {meeting.rate / 1e6:,.0f} MB/s ({SLOW / 1e6:.0f} are advised). In each step the "
            f"gradients of a billion parameters need {GRADIENTS / meeting.rate:,.0f} s there"
        )
    return meeting


def describe(meeting: Meeting) -> str:
    """The network on one line."""
    ways = ", ".join(dict.fromkeys(seat.interface for seat in meeting.seats))
    return f"{ways}, {meeting.latency * 1e3:.2f} ms, {meeting.rate / 1e6:,.0f} MB/s"


Tries = dict[tuple[int, int], dict[str, Reached]]  # (from, to) → by address of the latter


def _reach_all(links: Sequence[Link], heard: Sequence[_Heard]) -> Tries:
    """Every box connects to every other at all its addresses."""
    places = range(len(links))

    def connect(start: int) -> dict[int, dict[str, Reached]]:
        asked = [(end, each) for end in places if end != start for each in heard[end].told.interfaces]
        found = links[start].agent.reach([heard[end].peer(each) for end, each in asked])
        by_box: dict[int, dict[str, Reached]] = {end: {} for end in places if end != start}
        for (end, interface), reached in zip(asked, found, strict=True):
            by_box[end][interface.address] = reached
        return by_box

    answers = each_host(places, connect)
    answers.raise_first()
    return {(start, end): found for start, boxes in answers.given.items() for end, found in boxes.items()}


def choose_seats(told: Sequence[Listening], reached: Tries, names: Sequence[str]) -> list[list[Seat]]:
    """For each rank the seats that its box may take, those that its provider names first. Raises BoxNotReady where a box has none."""
    places = range(len(told))
    seats = []
    for place in _by_rank(told):
        others = [reached[start, place] for start in places if start != place]
        own = told[place].cluster.get("NODE_ADDR")
        open_to_all = [
            Seat(place, each.address, each.name)
            for each in told[place].interfaces
            if all(tries[each.address].error is None for tries in others)
        ]
        seats.append(sorted(open_to_all, key=lambda seat: seat.address != own))
    if all(seats):
        return seats
    raise BoxNotReady(
        "the boxes do not reach each other, in both directions, at any of their addresses:\n"
        + "\n".join(_told_of(way, tries, told, names) for way, tries in sorted(reached.items())),
        meaning="Nothing was pushed or started.",
        hint="Boxes behind a NAT, as rented alone, cannot train together: rent them as a cluster or in one private network. "
        "On one box: --set resources.boxes=1, with one --host.",
    )


def _by_rank(told: Sequence[Listening]) -> list[int]:
    """The places in the order of ranks: the provider's where it gave each box one of its own, else the order of the hosts."""
    ranks = [each.cluster.get("NODE_RANK", "") for each in told]
    primaries = {each.cluster.get("PRIMARY_ADDR") for each in told}
    if len(primaries) == 1 and sorted(ranks) == sorted(str(number) for number in range(len(told))):
        return sorted(range(len(told)), key=lambda place: int(ranks[place]))
    return list(range(len(told)))


def _told_of(way: tuple[int, int], tries: dict[str, Reached], told: Sequence[Listening], names: Sequence[str]) -> str:
    start, end = way
    interface = {each.address: each.name for each in told[end].interfaces}
    said = [
        f"{address} ({interface[address]}) {each.error or f'reached in {(each.latency or 0) * 1e3:.2f} ms'}"
        for address, each in tries.items()
    ]
    return f"{names[start]} → {names[end]}: {', '.join(said) or 'it has no network but the loopback'}"


def _measure(links: Sequence[Link], heard: Sequence[_Heard], seats: Sequence[Sequence[Seat]]) -> dict[Seat, float]:
    """How many bytes a second arrive at each seat from the box of the rank before, while all boxes send."""

    def send(rank: int) -> list[float]:
        start = seats[rank - 1][0].place
        peers = [heard[seat.place].peer(Interface(seat.interface, seat.address)) for seat in seats[rank]]
        return [each.rate or 0.0 for each in links[start].agent.reach(peers, SECONDS)]

    answers = each_host(range(len(seats)), send)
    answers.raise_first()
    return {seat: rate for rank, rates in answers.given.items() for seat, rate in zip(seats[rank], rates, strict=True)}


def _latency(reached: Tries, seat: Seat) -> float:
    tries = [found[seat.address] for (_, end), found in reached.items() if end == seat.place]
    return max(each.latency or 0.0 for each in tries)
