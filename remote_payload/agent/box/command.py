"""A command run to its end, its lines reported as they come and the last of them kept for the error."""

import os
import select
import signal
import subprocess
import time
from collections import deque
from typing import Callable, Deque, Dict, Iterator, List, Optional, Sequence

LAST_LINES = 30
REPORT_EVERY = 60.0  # seconds without a line after which a line reports that the command still runs
LINE_LIMIT = 500  # characters of a line that travel
GRACE = 5.0  # seconds between TERM and KILL

Report = Callable[[str], None]


class CommandFailed(Exception):
    """A command ended with another status than 0; ``lines`` are its last ones."""

    def __init__(self, command: Sequence[str], status: int, lines: Sequence[str]) -> None:
        super().__init__("%s ended with status %d" % (os.path.basename(command[0]), status))
        self.command = list(command)
        self.status = status
        self.lines = list(lines)

    def last_lines(self) -> str:
        """The lines as they are shown in an error, indented."""
        return "\n".join("    " + line for line in self.lines)


class CommandCancelled(Exception):
    """The command was ended because the request was cancelled."""


def run(
    command: Sequence[str],
    report: Report,
    variables: Optional[Dict[str, str]] = None,
    cancelled: Callable[[], bool] = lambda: False,
    keep_open: Sequence[int] = (),
) -> None:
    """Runs ``command`` without a terminal or input; ``keep_open`` are descriptors that it inherits.

    Raises CommandFailed, CommandCancelled once ``cancelled()`` is true and its process group is ended, and OSError where
    it cannot start.
    """
    last: Deque[str] = deque(maxlen=LAST_LINES)
    began = time.monotonic()

    def wait() -> None:
        report("%s still runs (%d s)" % (os.path.basename(command[0]), time.monotonic() - began))

    process = subprocess.Popen(
        list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=variables, start_new_session=True, pass_fds=tuple(keep_open), bufsize=0,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        for line in _lines(process, cancelled, wait):
            last.append(line)
            report(line)
        while process.poll() is None and not cancelled():
            time.sleep(0.02)
        if process.poll() is None:
            raise CommandCancelled(command[0])
    finally:
        process.stdout.close()
        _end(process)
    if process.returncode:
        raise CommandFailed(command, process.returncode, last)


def _lines(
    process: "subprocess.Popen[bytes]", cancelled: Callable[[], bool], silent: Callable[[], None]
) -> Iterator[str]:
    """What the command writes, until its output closes or it has ended and a child of its keeps the pipe open.

    ``silent`` is called after every REPORT_EVERY seconds without a line.
    """
    assert process.stdout is not None
    pending = b""
    poll = select.poll()  # select() knows only the first 1024 descriptors
    poll.register(process.stdout, select.POLLIN)
    heard = time.monotonic()
    while not cancelled():
        ready = poll.poll(200)
        block = process.stdout.read(65536) if ready else None
        if block or time.monotonic() - heard > REPORT_EVERY:
            heard = time.monotonic()
            if not block:
                silent()
        if block:
            # A carriage return ends a line too: progress bars. Longer lines are truncated.
            *whole, pending = (pending + block).replace(b"\r", b"\n").split(b"\n")
            pending = pending[: 4 * LINE_LIMIT]
            yield from _texts(whole)
        elif block == b"" or process.poll() is not None:
            yield from _texts([pending])
            return


def _texts(lines: Sequence[bytes]) -> List[str]:
    texts = (line.decode("utf-8", "replace").strip()[:LINE_LIMIT] for line in lines)
    return [text for text in texts if text]


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends the process group of a command that still runs; TERM first."""
    deadline = time.monotonic() + GRACE
    sent = None
    while process.poll() is None:
        wanted = signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL
        if wanted != sent:
            _signal_group(process.pid, wanted)
            sent = wanted
        time.sleep(0.05)


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass
