"""Whether two boxes reach each other: real agents behind real sshds, in two network namespaces that a cable joins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from runner.domain.errors import BoxNotReady
from runner.domain.progress import Silent
from runner.transport.link import Link
from runner.workflow.connect import connect, resolve_or_start_host
from runner.workflow.several_boxes.preflight import SLOW, Seat, meet
from tests.support.boxes.namespaced import NamespacedBox, Racked
from tests.support.boxes.namespaced import pair as pair
from tests.support.boxes.namespaced import rack as rack


class Told(Silent):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@contextmanager
def linked(boxes: list[NamespacedBox]) -> Iterator[list[Link]]:
    with ExitStack() as stack:
        yield [stack.enter_context(connect(resolve_or_start_host(box.address), Silent())) for box in boxes]


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "state"))


def test_the_network_that_joins_the_boxes_is_found_and_measured(pair: list[NamespacedBox]) -> None:
    """eth0 has the same address on both, and each box answers itself there: it is not taken for the other."""
    told = Told()
    with linked(pair) as links:
        meeting = meet(links, told)
    assert meeting.seats == (Seat(0, "10.88.0.1", "eth1"), Seat(1, "10.88.0.2", "eth1"))
    assert meeting.rendezvous != meeting.supervisors and 20000 <= meeting.supervisors < 32000
    assert 0 < meeting.latency < 1 and meeting.rate > 0
    assert bool(told.warnings) == (meeting.rate < SLOW)


def test_a_slow_network_is_told_with_its_figure(pair: list[NamespacedBox]) -> None:
    pair[1].slow_down("eth1", "100mbit")
    told = Told()
    with linked(pair) as links:
        meeting = meet(links, told)
    assert 5e6 < meeting.rate < 13e6  # 100 Mbit/s are 12.5 MB/s
    (warning,) = told.warnings
    assert f"{meeting.rate / 1e6:,.0f} MB/s" in warning and "billion parameters" in warning


def test_boxes_behind_a_nat_are_refused_with_what_was_tried(pair: list[NamespacedBox]) -> None:
    pair[1].refuse_strangers()
    with linked(pair) as links, pytest.raises(BoxNotReady) as refused:
        meet(links, Silent())
    first, second = refused.value.message.splitlines()[1:]
    assert "10.88.0.2 (eth1) no answer within 3 s" in first and "172.17.0.2 (eth0) " in first
    assert "10.88.0.1 (eth1) reached in " in second
    assert "Nothing was pushed" in refused.value.meaning


def test_the_providers_ranks_and_address_are_taken(rack: Racked) -> None:
    (second,) = rack(1, PRIMARY_ADDR="10.1.0.1", NODE_ADDR="10.1.0.2", NODE_RANK="1", NUM_NODES="2")
    (first,) = rack(1, PRIMARY_ADDR="10.1.0.1", NODE_ADDR="10.1.0.1", NODE_RANK="0", NUM_NODES="2")
    first.cable(second, "ens1", "10.1.0.1", "10.1.0.2")
    with linked([second, first]) as links:
        meeting = meet(links, Silent())
    assert meeting.seats == (Seat(1, "10.1.0.1", "ens1"), Seat(0, "10.1.0.2", "ens1"))
