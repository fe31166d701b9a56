"""The other end of an agent session without a box: frames that were written down, said to the real session by the real protocol."""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Callable, Iterable
from typing import Any

from remote_payload.agent.wire import protocol
from remote_payload.agent.wire.protocol import Frame
from runner.transport.agent import Agent
from runner.transport.session import AgentSession, StartedAgent

ROOT = "/root/.gpurun-box"
Said = tuple[bytes, bytes]  # type of a frame, payload
Answer = Callable[[str, dict[str, Any]], Iterable[Said]]


class ReplayPipe:
    """Answers each request with the frames that ``answer(verb, args)`` gives; blobs are taken and dropped."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._out: queue.Queue[bytes] = queue.Queue()
        self._unread = b""
        self._lock = threading.Lock()

    def read(self, count: int) -> bytes:
        if not self._unread:
            try:
                self._unread = self._out.get(timeout=protocol.SILENCE_LIMIT)
            except queue.Empty:
                raise TimeoutError from None
        part, self._unread = self._unread[:count], self._unread[count:]
        return part

    def write(self, data: bytes) -> None:
        stream = io.BytesIO(data)
        while (frame := protocol.read_frame(stream.read)) is not None:
            if frame.type == protocol.REQUEST:
                self._reply(frame)

    def close(self) -> None:
        self._out.put(b"")

    def _reply(self, request: Frame) -> None:
        asked = request.json()
        for kind, payload in self._answer(asked["verb"], asked["args"]):
            self._out.put(protocol.encode(kind, request.stream, payload))


def replaying(answer: Answer, root: str = ROOT) -> Agent:
    """An agent of the laptop's whose box says what ``answer`` gives."""
    pipe = ReplayPipe(answer)

    def already_started(early: bytes, public: bool) -> StartedAgent:
        pipe.write(early)
        return StartedAgent(root)

    return Agent(AgentSession(pipe, "root@box", already_started))
