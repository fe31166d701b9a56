"""An agent in a process of its own, spoken to over pipes by the laptop's own session: everything but SSH."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.transport.session import AgentSession

SOURCE = Path(__file__).resolve().parents[2]


class ProcessPipe:
    """The two ends of a process as the session's pipe."""

    def __init__(self, process: subprocess.Popen[bytes], silence: float = 15.0) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.process = process
        self.silence = silence
        self._in, self._out = process.stdin.fileno(), process.stdout.fileno()

    def read(self, count: int) -> bytes:
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


def read_line(pipe: ProcessPipe) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = pipe.read(1)
        if not byte:
            raise EOFError(line)
        line += byte
    return line


@contextmanager
def running_agent(home: Path, python: str = sys.executable, **environment: str) -> Iterator[AgentSession]:
    """``python -m remote_payload.agent serve`` with ``$HOME`` at ``home``, as a session."""
    process = subprocess.Popen(
        [python, "-m", "remote_payload.agent", "serve", "0" * 32],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "HOME": str(home), "PYTHONPATH": str(SOURCE), **environment},
        cwd=home,
    )
    try:
        pipe = ProcessPipe(process)
        assert read_line(pipe).split()[:2] == [b"0" * 32, b"ready"]
        session = AgentSession(pipe, "the box")
        yield session
        session.close()
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
