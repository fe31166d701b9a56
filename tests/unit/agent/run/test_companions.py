"""The supervisors of a run on several boxes: all hear of what ends the run, and nobody of anything else. Real sockets, a clock of ours."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator

import pytest

from remote_payload.agent.run.several_boxes.companions import (
    COME_WITHIN,
    ENDING,
    FAILED,
    LOST,
    LOST_AFTER,
    Companions,
    News,
)
from remote_payload.agent.wire.launch_request import Boxes

WORD = "w" * 32


class Run:
    """The supervisors of one run; ``pass_by`` lets each look three times a second."""

    def __init__(self, size: int) -> None:
        self.now = 1000.0
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.alive = {rank: self.make(size, rank) for rank in range(size)}
        self.gone: list[Companions] = []

    def make(self, size: int, rank: int, word: str = WORD) -> Companions:
        return Companions(Boxes(size, rank, "127.0.0.1", 1, self.port, "lo", word), lambda: self.now)

    def pass_by(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += 0.3
            for each in self.alive.values():
                each.look(0)

    def kill(self, rank: int) -> None:
        """Its process is gone: not a word more, and no connection."""
        one = self.alive.pop(rank)
        one._to_tell.clear()
        one.close()

    def close(self, rank: int) -> None:
        self.alive.pop(rank).close()

    def news(self) -> dict[int, News | None]:
        return {rank: each.news() for rank, each in self.alive.items()}


@pytest.fixture
def begin() -> Iterator[Callable[[int], Run]]:
    begun: list[Run] = []

    def start(size: int) -> Run:
        begun.append(Run(size))
        begun[-1].pass_by(5)
        return begun[-1]

    yield start
    for run in begun:
        for rank in list(run.alive):
            run.close(rank)


@pytest.mark.parametrize("seed", range(40))
def test_what_ends_the_run_is_heard_by_all_and_nothing_else_is(seed: int, begin: Callable[[int], Run]) -> None:
    chance = random.Random(f"companions-{seed}")
    run = begin(chance.randint(2, 5))
    for rank in chance.sample(range(1, len(run.alive)), chance.randint(0, len(run.alive) - 1)):
        run.alive[rank].tell_ended(True, None, None)  # a payload that is over and well is no news
        run.pass_by(1)
        if chance.random() < 0.7:
            run.close(rank)
    run.pass_by(chance.choice([1, 2 * LOST_AFTER]))
    assert not any(run.news().values())
    culprit, what = chance.choice(sorted(run.alive)), chance.choice([*ENDING, FAILED, LOST])
    over_and_well = culprit not in run.alive[0]._deadlines and culprit != 0
    if what in ENDING:
        run.alive[culprit].tell_ending(what)
    elif what == FAILED:
        run.alive[culprit].tell_ended(False, "cuda_oom", "CUDA out of memory")
    else:
        run.kill(culprit)
        run.pass_by(LOST_AFTER - 3)
        assert not any(run.news().values())
    run.pass_by(6)
    for rank, news in run.news().items():
        if (what == LOST and over_and_well) or rank == culprit:
            assert news is None
        else:
            assert news is not None and (news.rank, news.kind) == (culprit, what), (rank, news)
            assert what != FAILED or (news.cause, news.evidence) == ("cuda_oom", "CUDA out of memory")


def test_a_box_that_does_not_come_is_lost_after_its_time(begin: Callable[[int], Run]) -> None:
    run = begin(3)
    late = Run(3)
    late.kill(2)
    late.pass_by(COME_WITHIN - 5)
    assert not any(late.news().values())
    late.pass_by(10)
    assert [news and (news.rank, news.kind) for news in late.news().values()] == [(2, LOST), (2, LOST)]
    assert not any(run.news().values())
    for rank in list(late.alive):
        late.close(rank)


def test_a_supervisor_that_was_stopped_for_a_while_does_not_think_that_the_others_are_gone(
    begin: Callable[[int], Run],
) -> None:
    run = begin(2)
    run.now += 500  # SIGSTOP to one, and its box's other processes went on
    run.alive[0].look(0)
    assert run.alive[0].news() is None


def test_a_connection_that_breaks_is_made_again(begin: Callable[[int], Run]) -> None:
    run = begin(2)
    run.alive[1]._drop(run.alive[1]._lines[0])
    run.pass_by(2 * LOST_AFTER)
    assert not any(run.news().values())
    run.alive[1]._drop(run.alive[1]._lines[0])
    run.alive[1].tell_ended(False, "cuda_oom", None)  # while there is no connection
    run.alive[1]._send_all()
    run.pass_by(3)
    assert run.alive[0].news() == News(1, FAILED, "cuda_oom")


def test_who_fails_and_finds_a_companion_gone_without_a_word_calls_it_lost(begin: Callable[[int], Run]) -> None:
    run = begin(2)
    run.kill(1)
    run.pass_by(1)
    assert run.alive[0].news() is None  # it may come again
    assert run.alive[0].await_news(0) == News(1, LOST)


@pytest.mark.parametrize(
    "said", [b"\n", b"{}\n", b"[" * 9000, b'{"rank": 1, "word": "x"}\n', b'{"rank": "1"}\n', b"\xff\n"]
)
def test_a_stranger_is_sent_away(begin: Callable[[int], Run], said: bytes) -> None:
    run = begin(2)
    with socket.create_connection(("127.0.0.1", run.port), timeout=5) as stranger:
        stranger.sendall(said + b'{"rank": 1, "ended": "failed"}\n')
        run.pass_by(2)
        assert stranger.recv(65536) == b""  # it learns nothing, the word least of all
    run.pass_by(1)
    assert not any(run.news().values())
