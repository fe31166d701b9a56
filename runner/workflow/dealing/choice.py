"""Which box gets which run: the one where it is over first, by the GPUs that are free, the runs before it and the speed seen so far.

The length of a run is the unit of time: nothing is known of it before it runs, and the runs of a sweep are much alike. Where it would be
over at the same time on several boxes, the one is taken to which less has to be sent, then the one with the least of the work. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SMALL = 100 << 20  # bytes: sending less than that decides nothing


@dataclass(frozen=True)
class Offer:
    """What a box has for runs. ``pace`` is its speed in parts of the mean of all boxes: 2.0 is twice as fast."""

    host: str
    gpus: int
    free: int  # GPUs that no run has
    waiting: int  # runs in its queue
    processors: int
    pace: float = 1.0


@dataclass(frozen=True)
class Wanted:
    """What one run needs. ``to_send`` is in bytes, by host; ``refused`` says why a host cannot run it."""

    kind: object  # what is sent for one run serves those of the same kind
    gpus: int | str
    queue: bool
    to_send: Mapping[str, int]
    refused: Mapping[str, str]


@dataclass(frozen=True)
class Choice:
    """The box of a run, and why; without a host, why no box can run it."""

    host: str | None
    why: str


@dataclass
class _Box:
    """A box while runs are dealt: when each of its GPUs and processors is free again, in lengths of a run."""

    offer: Offer
    gpus: list[float]
    processors: list[float]
    dealt: int = 0
    has: set[object] = field(default_factory=set)

    @property
    def length(self) -> float:
        return 1 / self.offer.pace

    def lanes(self, wanted: Wanted) -> tuple[list[float], int]:
        """What the run takes a part of, and how large a part."""
        if wanted.gpus == 0:
            return self.processors, 1
        return self.gpus, len(self.gpus) if wanted.gpus == "all" else int(wanted.gpus)

    def start(self, wanted: Wanted) -> float:
        lanes, count = self.lanes(wanted)
        return sorted(lanes)[count - 1]

    def to_send(self, wanted: Wanted) -> int:
        size = 0 if wanted.kind in self.has else wanted.to_send.get(self.offer.host, 0)
        return size if size >= SMALL else 0

    def load(self, wanted: Wanted) -> float:
        lanes, _ = self.lanes(wanted)
        return self.dealt * self.length / len(lanes)

    def take(self, wanted: Wanted) -> None:
        lanes, count = self.lanes(wanted)
        lanes.sort()
        lanes[:count] = [lanes[count - 1] + self.length] * count
        self.dealt += 1
        self.has.add(wanted.kind)


def deal(runs: Sequence[Wanted], offers: Sequence[Offer]) -> list[Choice]:
    """A box for each run, in the order of the runs; where several are as good, the first of ``offers``."""
    boxes = [_box(offer) for offer in offers]
    return [_choose(wanted, boxes) for wanted in runs]


def _box(offer: Offer) -> _Box:
    box = _Box(offer, [0.0] * offer.gpus, [0.0] * max(1, offer.processors))
    held = offer.gpus - offer.free
    box.gpus[:held] = [box.length] * held
    for _ in range(offer.waiting if box.gpus else 0):  # each takes the GPU that is free first
        soonest = box.gpus.index(min(box.gpus))
        box.gpus[soonest] += box.length
    return box


def _choose(wanted: Wanted, boxes: Sequence[_Box]) -> Choice:
    able = [box for box in boxes if _can_run(wanted, box)]
    if not able:
        reasons = [f"{host}: {why}" for host, why in wanted.refused.items()]
        return Choice(None, "; ".join(reasons) or "no box has as many GPUs")
    at_once = [box for box in able if box.start(wanted) == 0]
    among = at_once if at_once and not wanted.queue else able  # a run that may not wait needs a GPU that is free
    best = min(among, key=lambda box: (box.start(wanted) + box.length, box.to_send(wanted), box.load(wanted)))
    why = _why(wanted, best, able)
    best.take(wanted)
    return Choice(best.offer.host, why)


def _can_run(wanted: Wanted, box: _Box) -> bool:
    lanes, count = box.lanes(wanted)
    return box.offer.host not in wanted.refused and 0 < count <= len(lanes)


def _why(wanted: Wanted, best: _Box, able: Sequence[_Box]) -> str:
    said = [_turn(wanted, best)]
    others = [box for box in able if box is not best]
    if not others:
        said.append("no other box can run it")
    slowest = min((box.offer.pace for box in others), default=best.offer.pace)
    if best.offer.pace > 1.1 * slowest:
        said.append(f"it ran this job {best.offer.pace / slowest:.1f} times as fast as another")
    if others and not best.to_send(wanted) and any(box.to_send(wanted) for box in others):
        said.append("what it needs is there" if wanted.kind not in best.has else "what it needs is sent there anyway")
    return ", ".join(said)


def _turn(wanted: Wanted, best: _Box) -> str:
    _, count = best.lanes(wanted)
    if wanted.gpus == 0:
        return "fewest runs for its processors"
    if best.start(wanted) == 0:
        free = sum(until == 0 for until in best.gpus)
        return f"{free} of {len(best.gpus)} GPUs are free"
    return f"its turn for {'a GPU' if count == 1 else f'{count} GPUs'} comes first there"
