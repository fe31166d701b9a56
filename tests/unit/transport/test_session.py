"""runner/transport/session.py: which error a caller sees when a request is broken off."""

import pytest

from remote_payload.agent.wire import protocol
from runner.domain.errors import Unanswered
from runner.transport.session import AgentSession, Patience, StartedAgent


class BlockedPipe:
    """A pipe of which nothing is read any more, on either side."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def read(self, count: int) -> bytes:
        raise AssertionError("nobody reads here")

    def write(self, data: bytes) -> None:
        self.written.append(data)
        raise TimeoutError  # as paramiko's sendall does after the channel's timeout

    def close(self) -> None:
        pass


def test_an_interrupt_while_a_request_is_sent_stays_an_interrupt() -> None:
    """The cancellation that followed it waited 15 s on a broken channel, and its error replaced the interrupt: fetch went on."""

    def interrupted(early: bytes, public: bool) -> StartedAgent:
        raise KeyboardInterrupt

    pipe = BlockedPipe()
    with pytest.raises(KeyboardInterrupt):
        list(AgentSession(pipe, "the box", interrupted).stream("manifest", {}))
    assert pipe.written == []


def test_the_error_of_a_request_is_not_replaced_by_that_of_its_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = BlockedPipe()
    session = AgentSession(pipe, "the box", lambda early, public: StartedAgent("/root/.gpurun-box"))
    monkeypatch.setattr(session, "_read_frames", lambda: None)
    with pytest.raises(Unanswered):
        list(session.stream("status", {}, patience=Patience(0.05)))
    assert [protocol.CANCEL in each for each in pipe.written] == [True]
