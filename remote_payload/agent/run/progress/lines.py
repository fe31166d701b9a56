"""A log's bytes as lines: a line ends with a newline or a carriage return, as those of progress bars do. Pure.

The lines are the same wherever the bytes are cut, and no input makes them grow without bound.
"""

import re
from typing import Iterator, NamedTuple

LONGEST = 4096  # bytes of a line; what comes behind them is dropped
ENDS = re.compile(rb"[\r\n]")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b.|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Line(NamedTuple):
    """A line without its end, colours and control characters; the log's offset behind it."""

    text: str
    end: int


class Lines:
    """Takes the bytes of a log from ``offset`` on, gives the lines that are complete."""

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset  # behind the last byte that was taken
        self._begun = b""

    def feed(self, data: bytes) -> Iterator[Line]:
        """The lines that end in ``data``. Empty ones are left out."""
        begin = 0
        for end in ENDS.finditer(data):
            line = (self._begun + data[begin : min(end.start(), begin + LONGEST)])[:LONGEST]
            self._begun, begin = b"", end.end()
            if line:
                yield Line(_plain(line), self.offset + begin)
        self._begun = (self._begun + data[begin : begin + LONGEST])[:LONGEST]
        self.offset += len(data)

    def rest(self) -> Iterator[Line]:
        """What has no end yet, as a line: for the end of a log."""
        line, self._begun = self._begun, b""
        if line:
            yield Line(_plain(line), self.offset)

    def jump(self, offset: int) -> None:
        """Goes on at another place, which may be within a line: what comes before the next end is not read as one."""
        self.offset = offset
        self._begun = b"\0" * LONGEST  # nothing can be added to it, and it is an empty line


def _plain(line: bytes) -> str:
    return ESCAPES.sub("", line.decode("utf-8", "replace"))
