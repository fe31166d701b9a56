"""``gpurun logs --timestamps``: the log stays the payload's own, and each line has the time at which the box saw it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from runner.workflow.observing import timed_log
from runner.workflow.observing.timed_log import LONGEST, TimedLog, in_words


class Box:
    """A log that a payload writes and a supervisor looks at, as both files arrive on the laptop."""

    def __init__(self, folder: Path, draw: random.Random) -> None:
        self.folder, self.draw, self.now = folder, draw, 1_700_000_000.0
        self.log, self.seen = b"", 0
        self.ticks: list[tuple[int, float]] = []

    def write(self) -> None:
        """Some lines, or a part of one; now and then an event of the payload's that looks like the supervisor's."""
        parts = (self.draw.choice([b"step\n", b"\n", b"half ", b"\r\xff\n", b"x" * 300]) for _ in range(9))
        self.add("log", b"".join(list(parts)[: self.draw.randint(0, 9)]))
        if self.draw.random() < 0.2:
            self.add("events.jsonl", self.draw.choice([b'{"type":"log"}\n', b'{"a":{"type":"log"}}\n', b"\xff[\n"]))

    def add(self, name: str, data: bytes) -> None:
        if name == "log":
            self.log += data
        with (self.folder / name).open("ab") as file:
            file.write(data)

    def look(self) -> None:
        """What the supervisor does once a second."""
        self.now += 1.0
        if len(self.log) != self.seen:
            self.seen = len(self.log)
            self.ticks.append((self.seen, self.now))
            event = json.dumps({"t": self.now, "type": "log", "size": self.seen}, separators=(",", ":")).encode()
            self.add("events.jsonl", event + b"\n")

    def time_of(self, end: int) -> float | None:
        return next((moment for size, moment in self.ticks if size >= end), None)


@pytest.mark.parametrize("seed", range(30))
def test_every_byte_comes_once_and_each_line_with_the_time_at_which_it_was_first_seen(
    seed: int, tmp_path: Path
) -> None:
    draw = random.Random(seed)
    box, log = Box(tmp_path, draw), TimedLog(tmp_path)
    given: list[tuple[float | None, bytes]] = []
    for _ in range(60):
        draw.choice([box.write, box.look, lambda: given.extend(log.lines())])()
    assert all(moment is not None for moment, _ in given), "a line waits for its time"
    given += log.lines(end=True)
    assert b"".join(line for _, line in given) == box.log
    end = 0
    for moment, line in given:
        end += len(line)
        assert moment == box.time_of(end)


def test_lines_whose_times_nobody_notes_are_given_without_them_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supervisor that was killed, or a run of an older gpurun."""
    now = [100.0]
    monkeypatch.setattr(timed_log.time, "monotonic", lambda: now[0])
    (tmp_path / "log").write_bytes(b"one\ntwo\nthr")
    log = TimedLog(tmp_path)
    assert list(log.lines()) == []
    now[0] += timed_log.PATIENCE + 1
    assert list(log.lines()) == [(None, b"one\n"), (None, b"two\n")]
    assert list(log.lines(end=True)) == [(None, b"thr")]


def test_a_log_that_was_replaced_starts_again_with_times_of_its_own(tmp_path: Path) -> None:
    box = Box(tmp_path, random.Random(0))
    log = TimedLog(tmp_path)
    box.add("log", b"the first log\n")
    box.look()
    assert list(log.lines()) == [(box.now, b"the first log\n")]
    (tmp_path / "log").unlink()
    box.log = b""
    box.add("log", b"other\n")
    box.look()
    assert list(log.lines()) == [(box.now, b"other\n")]


def test_a_hole_in_the_copy_and_a_line_without_end_cost_no_memory(tmp_path: Path) -> None:
    hole, long = 3 * LONGEST, b"y" * (2 * LONGEST + 5)
    with (tmp_path / "log").open("wb") as file:
        file.seek(hole)
        file.write(b"newest\n" + long)
    given = [line for _, line in TimedLog(tmp_path).lines(end=True)]
    assert b"".join(given) == b"newest\n" + long
    assert max(map(len, given)) <= LONGEST


@pytest.mark.parametrize(("moment", "words"), [(None, ""), (0.0, "1970-01-01 00:00:00"), (1e9, "2001-09-09 01:46:40")])
def test_a_time_in_words_has_one_width(moment: float | None, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    utc: Any = timed_log.time.gmtime
    monkeypatch.setattr(timed_log.time, "localtime", utc)
    assert in_words(moment) == f"{words:<19}"
