"""An agent in a process of its own, spoken to over pipes by the laptop's own session: everything but SSH."""

from __future__ import annotations

import os
import secrets
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from remote_payload.agent.box import locks
from remote_payload.agent.wire import protocol
from remote_payload.agent.wire.paths import BoxPaths
from runner.transport.session import AgentSession, StartedAgent

SOURCE = Path(__file__).resolve().parents[2]
FROM_SOURCE = (sys.executable, "-m", "remote_payload.agent")


class ProcessPipe:
    """The two ends of a process as the session's pipe."""

    def __init__(self, process: subprocess.Popen[bytes], silence: float = 15.0) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.process = process
        self.silence = silence
        self._in, self._out = process.stdin.fileno(), process.stdout.fileno()
        self._reading = threading.Lock()

    def read(self, count: int) -> bytes:
        with self._reading:
            if self._out < 0:
                return b""
            if not select.select([self._out], [], [], self.silence)[0]:
                raise TimeoutError("silence")
            return os.read(self._out, count)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._in, view) :]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def end(self) -> None:
        """Closes the other direction, once no reader is in it: its number is given to the next pipe at once."""
        assert self.process.stdout is not None
        with self._reading:
            self._out = -1
            self.process.stdout.close()


def read_line(pipe: ProcessPipe) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = pipe.read(1)
        if not byte:
            raise EOFError(line)
        line += byte
    return line


class Session(AgentSession):
    """The laptop's session, for tests that make one request at a time and look at the raw answer."""

    def call(
        self,
        verb: str,
        args: dict[str, Any],
        *,
        progress: Callable[[dict[str, Any]], None] = lambda notice: None,
        blobs: Iterable[bytes] = (),
    ) -> dict[str, Any]:
        """The answer to one request. Raises the agent's error under its own class, or LinkLost."""
        for frame in self.stream(verb, args, blobs=blobs):
            if frame.type == protocol.PROGRESS:
                progress(frame.json())
        answer: dict[str, Any] = frame.json()
        return answer


def start_agent(home: Path, start: Sequence[str] = FROM_SOURCE, **environment: str) -> tuple[Session, ProcessPipe]:
    """An agent started by ``start``, with ``$HOME`` at ``home``, as a session, and the process to be rough with."""
    process = subprocess.Popen(
        [*start, "serve", "0" * 32],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "HOME": str(home), "PYTHONPATH": str(SOURCE), **environment},
        cwd=home,
    )
    pipe = ProcessPipe(process)
    said = read_line(pipe)
    assert said.split()[:2] == [b"0" * 32, b"ready"], said
    started = StartedAgent(*(word.decode() for word in said.split()[3:]))

    def already_started(early: bytes, public: bool) -> StartedAgent:
        pipe.write(early)
        return started

    return Session(pipe, "the box", already_started), pipe


def end_agent(pipe: ProcessPipe) -> None:
    """Kills the agent where it still runs, and gives the pipes back."""
    if pipe.process.poll() is None:
        pipe.process.kill()
    pipe.process.wait()
    pipe.end()


@contextmanager
def running_agent(home: Path, start: Sequence[str] = FROM_SOURCE, **environment: str) -> Iterator[Session]:
    """An agent for the length of the block. Ends in good order unless the test ended it."""
    session, pipe = start_agent(home, start, **environment)
    try:
        yield session
        if pipe.process.poll() is None:
            session.close()
            assert pipe.process.wait(30) == 0
    finally:
        end_agent(pipe)


def run_id(name: str = "test") -> str:
    """A new run id; the secrets of all tests on a machine share one folder, so each needs its own."""
    return f"{name}-20260102-142030-{secrets.token_hex(2)}"


def launch(agent: Session, command: list[str], run: str | None = None, **args: Any) -> dict[str, Any]:
    """Launches ``command`` and gives the answer."""
    return agent.call("launch", {"run_id": run or run_id(), "job": {}, "code": {}, "command": command, **args})


def status(agent: Session, run: str) -> dict[str, Any]:
    """The status of one run."""
    answer: dict[str, Any] = agent.call("status", {"run_ids": [run]})["runs"][0]
    return answer


def until_finished(agent: Session, run: str) -> dict[str, Any]:
    """Awaits the end of a run, supervisor and all; its status."""
    for frame in agent.stream("follow", {"run_id": run}):
        if frame.type == protocol.RESULT:
            final: dict[str, Any] = frame.json()["status"]
    paths = BoxPaths(agent.root)
    wait_until(lambda: not locks.is_held(locks.run_lock(paths.run(run))))
    return final


def log_of(agent: Session, run: str, **args: Any) -> bytes:
    """The run's log as ``follow`` sends it, to its end."""
    return b"".join(
        frame.payload[8:] for frame in agent.stream("follow", {"run_id": run, **args}) if frame.type == protocol.LOG
    )


def wait_until(condition: Callable[[], Any], limit: float = 60.0, every: float = 0.02) -> Any:
    """Awaits a condition by asking; its first true value. Fails the test after ``limit`` seconds."""
    deadline = time.monotonic() + limit
    while not (value := condition()):
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(every)
    return value
