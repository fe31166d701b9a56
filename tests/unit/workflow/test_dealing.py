"""runner/workflow/dealing: where a run is over first, by what is known of the boxes."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from runner.domain.answers.status import Status
from runner.domain.job import Job
from runner.domain.run import Run
from runner.workflow.dealing.choice import Choice, Offer, Wanted, deal
from runner.workflow.dealing.pace import paces
from tests.support.trials import trials

GIB = 1 << 30


def box(host: str, gpus: int = 8, free: int | None = None, waiting: int = 0, pace: float = 1.0) -> Offer:
    return Offer(host, gpus, gpus if free is None else free, waiting, 16, pace)


def run(gpus: int | str = 1, *, queue: bool = True, kind: object = "a", sends: dict[str, int] | None = None) -> Wanted:
    return Wanted(kind, gpus, queue, sends or {}, {})


def counts(choices: list[Choice]) -> dict[str | None, int]:
    return {host: len(list(group)) for host, group in itertools.groupby(sorted(str(each.host) for each in choices))}


def test_twenty_runs_go_to_two_equal_boxes_half_and_half() -> None:
    assert counts(deal([run()] * 20, [box("a"), box("b")])) == {"a": 10, "b": 10}


def test_a_box_that_is_busy_or_has_runs_that_wait_gets_fewer() -> None:
    assert counts(deal([run()] * 8, [box("a", free=0), box("b")])) == {"b": 8}
    assert counts(deal([run()] * 16, [box("a", free=0, waiting=8), box("b")])) == {"b": 16}
    assert counts(deal([run()] * 24, [box("a", free=0), box("b")])) == {"a": 8, "b": 16}


def test_a_box_that_is_three_times_as_fast_gets_three_times_as_many() -> None:
    choices = deal([run()] * 32, [box("slow", pace=0.5), box("fast", pace=1.5)])
    assert counts(choices) == {"fast": 24, "slow": 8}
    assert "3.0 times as fast" in next(each.why for each in choices if each.host == "fast")


def test_of_two_boxes_that_are_as_good_the_one_is_taken_that_has_the_data() -> None:
    sends = {"a": 80 * GIB, "b": 0}
    choices = deal([run(sends=sends)] * 4, [box("a"), box("b")])
    assert counts(choices) == {"b": 4} and "what it needs is there" in choices[0].why
    assert counts(deal([run(sends=sends)] * 16, [box("a"), box("b")])) == {"a": 8, "b": 8}
    few = {"a": 1 << 20, "b": 0}
    assert counts(deal([run(sends=few)] * 4, [box("a"), box("b")])) == {"a": 2, "b": 2}


def test_a_run_that_may_not_wait_goes_where_gpus_are_free() -> None:
    fast_and_busy = box("busy", free=1, pace=10.0)
    choices = deal([run(queue=False)] * 3, [fast_and_busy, box("free", gpus=2)])
    assert counts(choices) == {"busy": 1, "free": 2}


def test_a_run_of_all_gpus_waits_for_the_whole_box() -> None:
    choices = deal([run("all"), run()], [box("a", free=7), box("b")])
    assert [each.host for each in choices] == ["b", "a"]


def test_a_run_that_no_box_can_take_is_given_to_none_and_says_why() -> None:
    refused = Wanted("a", 1, True, {}, {"a": "GPU: none there", "b": "disk: full"})
    (choice,) = deal([refused], [box("a"), box("b")])
    assert choice == Choice(None, "a: GPU: none there; b: disk: full")
    assert deal([run(16)], [box("a")])[0].host is None


@trials("dealing", quick=20, full=2000)
def test_no_run_would_be_over_sooner_on_another_box(chance: random.Random) -> None:
    """Played through: with each box's queue worked off in order, the first run to wait could not have been over sooner elsewhere."""
    offers = []
    for host in "abc"[: chance.randint(1, 3)]:
        gpus = chance.randint(1, 8)
        offers.append(box(host, gpus, chance.randint(0, gpus), chance.randint(0, 6), chance.choice([0.5, 1.0, 2.0])))
    runs = [run(chance.choice([1, 1, 2]), kind=chance.randint(0, 2)) for _ in range(chance.randint(1, 30))]
    choices = deal(runs, offers)
    lanes = {offer.host: sorted(_busy_until(offer)) for offer in offers}
    for wanted, choice in zip(runs, choices, strict=True):
        count = int(wanted.gpus)
        ends = {
            offer.host: lanes[offer.host][count - 1] + 1 / offer.pace
            for offer in offers
            if count <= len(lanes[offer.host])
        }
        if not ends:
            assert choice.host is None
            continue
        assert choice.host is not None and ends[choice.host] == pytest.approx(min(ends.values()))
        lanes[choice.host] = sorted([*lanes[choice.host][count:], *[ends[choice.host]] * count])


def _busy_until(offer: Offer) -> list[float]:
    lanes = [0.0] * offer.free + [1 / offer.pace] * (offer.gpus - offer.free)
    for _ in range(offer.waiting):
        lanes.sort()
        lanes[0] += 1 / offer.pace
    return lanes


def _ran(box: str, ms: float, file: str = "/p/job.yaml", experiment: str | None = None) -> Run:
    status = Status("x", "running", progress={"step": {"ms": ms}})
    job = Job("legal").at(Path("/p"), Path(file))
    return Run("x", job, "host", 0.0, box=box, experiment=experiment, status=status)


def test_the_speed_of_a_box_is_that_of_the_same_experiment_alone() -> None:
    jobs = [(Job("legal").at(Path("/p"), Path("/p/job.yaml")), None)]
    boxes = {"a": "1" * 32, "b": "2" * 32, "new": "3" * 32}
    runs = [_ran(boxes["a"], 100), _ran(boxes["b"], 300), _ran(boxes["b"], 1, experiment="tiny"), _ran("4" * 32, 7)]
    assert paces(runs, jobs, boxes) == pytest.approx({"a": 1.5, "b": 0.5, "new": 1.0})
    assert paces([*runs[:1], *runs[2:]], jobs, boxes) == {"a": 1.0, "b": 1.0, "new": 1.0}
