"""Work on several boxes: at once, each box's answer or error by its name, in the order asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from runner.domain.errors import ConnectFailed, LinkLost
from runner.domain.host import Host
from runner.domain.progress import Reporter, Silent, Stage
from runner.workflow import connect, each_host
from runner.workflow.each_host import Answers, Place, ask_each_host
from runner.workflow.each_host import each_host as on_each

TOGETHER = 10.0  # seconds


def test_the_hosts_are_worked_on_at_once_and_the_answers_keep_their_order() -> None:
    meeting = threading.Barrier(3)

    def work(name: str) -> str:
        meeting.wait(TOGETHER)  # passes only when all three are in here
        return name.upper()

    answers = on_each(["c", "a", "b"], work)
    assert list(answers.given.items()) == [("c", "C"), ("a", "A"), ("b", "B")]
    assert not answers.errors


def test_an_error_of_one_host_is_kept_beside_the_answers_of_the_others() -> None:
    def work(name: str) -> int:
        if name == "dead":
            raise ConnectFailed("no route to dead")
        return len(name)

    answers = on_each(["one", "dead", "three"], work)
    assert answers.given == {"one": 3, "three": 5}
    assert [str(error) for error in answers.errors.values()] == ["no route to dead"]
    with pytest.raises(ConnectFailed, match="no route to dead"):
        answers.raise_first()


def test_none_is_an_answer() -> None:
    assert on_each(["a", "b"], lambda name: None).given == {"a": None, "b": None}


def test_a_bug_is_raised_and_not_taken_for_an_answer() -> None:
    def work(name: str) -> int:
        return {"a": 1}[name]

    with pytest.raises(KeyError, match="b"):
        on_each(["a", "b"], work)


def test_no_host_is_no_answer() -> None:
    assert on_each([], lambda name: 1) == Answers()


class Heard(Silent):
    def __init__(self) -> None:
        self.titles: list[str] = []

    @contextmanager
    def stage(self, title: str, unit: str = "") -> Iterator[Stage]:
        self.titles.append(title)
        yield self


@pytest.mark.stand_in
def test_a_link_that_breaks_is_opened_again_for_its_host_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """stand_in: the links, whose breaking is chosen here."""
    opened: list[str] = []

    @contextmanager
    def open_link(host: Host, report: Reporter, *, strict: bool = False) -> Iterator[object]:
        opened.append(host.typed)
        yield SimpleNamespace(host=host)

    monkeypatch.setattr(connect, "connect", open_link)
    monkeypatch.setattr(connect, "PAUSES", (0.0,))
    monkeypatch.setattr(
        each_host, "resolve_or_start_host", lambda typed, volume: Host(typed, typed, 22, "me", volume=volume)
    )
    report = Heard()

    def ask(place: Place, link: object, told: Reporter) -> str:
        with told.stage("ask"):
            if place.host == "shaky" and opened.count("shaky") == 1:
                raise LinkLost("the connection broke")
        return f"{place.host} has {place.volume}"

    answers = ask_each_host([Place("calm"), Place("shaky", "/data")], ask, report)
    assert list(answers.given.values()) == ["calm has None", "shaky has /data"]
    assert sorted(opened) == ["calm", "shaky", "shaky"]
    assert sorted(report.titles) == ["calm: ask", "shaky: ask", "shaky: ask"]
