"""runner/workflow/connect.py: a link that is opened again where it breaks. stand_in for SSH: a link that breaks when it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from runner.domain.errors import AuthFailed, BoxNotReady, LinkLost, PythonMissing
from runner.domain.host import Host
from runner.domain.progress import Silent
from runner.workflow import connect as connecting
from runner.workflow.connect import ReconnectingLink

pytestmark = pytest.mark.stand_in
HOST = Host("box", "box", 22, "root")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What happened to the links, in order."""
    events: list[str] = []

    @contextmanager
    def connect(host: Host, report: Any, *, strict: bool = False) -> Iterator[object]:
        events.append("open")
        try:
            yield object()
        finally:
            events.append("close")

    monkeypatch.setattr(connecting, "connect", connect)
    monkeypatch.setattr(connecting, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(connecting, "_install_python", lambda host, report: events.append("install"))
    yield events


def test_a_link_stays_open_between_two_blocks(opened: list[str]) -> None:
    with ReconnectingLink(HOST, Silent()) as connection:
        with connection.link() as first:
            pass
        with connection.link() as second:
            assert second is first
    assert opened == ["open", "close"]


def test_a_link_that_breaks_ends_its_block_and_is_opened_again(opened: list[str]) -> None:
    tries = 0
    with ReconnectingLink(HOST, Silent()) as connection:
        while tries < 2:
            with connection.link():
                tries += 1
                if tries == 1:
                    raise LinkLost("broke")
    assert opened == ["open", "close", "open", "close"]


def test_the_last_loss_is_raised(opened: list[str]) -> None:
    with pytest.raises(LinkLost, match="broke"), ReconnectingLink(HOST, Silent()) as connection:
        while True:
            with connection.link():
                raise LinkLost("broke")
    assert opened == ["open", "close"] * 3


@pytest.mark.parametrize(
    "error", [AuthFailed("refused"), BoxNotReady("no disk"), PythonMissing("no Python"), ValueError("bug")]
)
def test_what_another_try_does_not_mend_is_raised_at_once(opened: list[str], error: Exception) -> None:
    with pytest.raises(type(error)), ReconnectingLink(HOST, Silent()) as connection, connection.link():
        raise error
    assert opened == ["open", "close"]


def test_python_is_installed_once(opened: list[str]) -> None:
    with (
        pytest.raises(PythonMissing),
        ReconnectingLink(HOST, Silent(), install_python=True) as connection,
    ):
        while True:
            with connection.link():
                raise PythonMissing("no Python")
    assert opened == ["open", "close", "install", "open", "close"]
