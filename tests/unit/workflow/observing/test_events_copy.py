"""What a watch brings: all events, the log's true end and nothing else of it, however both grow between two looks."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from remote_payload.agent.run.tail import Tail
from runner import store
from runner.domain import places
from runner.domain.job import Job
from runner.domain.run import Run, mint_id
from runner.workflow.watching.events_copy import END, EventsCopy, last_lines


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path))
    made = Run(mint_id("x"), Job("x"), "local", 0.0)
    store.create(made)
    return made


def look(log: Path, copy: EventsCopy) -> int:
    """What one request brings of the log, as the box sends it; its bytes."""
    sent = 0

    def send(offset: int, data: bytes) -> None:
        nonlocal sent
        sent += len(data)
        copy.write_log(offset, data)

    def tell(change: dict[str, object]) -> None:
        if change.get("change") in ("replaced", "truncated"):
            copy.start_over()
        copy.is_of(str(change["generation"]))

    tail = Tail(str(log), copy.log_offset, copy.generation or "", send, tell, None, copy.last_bytes)
    while tail.pump():
        pass
    tail.close()
    return sent


@pytest.mark.parametrize("seed", range(30))
def test_the_end_is_the_true_one_and_no_more_than_it_crosses_the_link(run: Run, tmp_path: Path, seed: int) -> None:
    dice, log = random.Random(seed), tmp_path / "log-on-the-box"
    here = places.run_folder(run.run_id) / "log"
    here.write_bytes(b"brought by gpurun logs\n")
    copy, truth = EventsCopy(run), b""
    assert copy.last_lines(3) == ["brought by gpurun logs"]
    for number in range(30):
        if number and dice.random() < 0.1:
            log.rename(tmp_path / f"log-{number}")  # another file takes its name
            truth = b""
        truth += bytes(dice.choices(b"abc\n", k=dice.choice([1, 1, 50, 3 * END])))
        log.write_bytes(truth)
        assert look(log, copy) <= END
        assert copy.last_lines(9) == last_lines(truth[-END:], 9)
        assert copy.log_offset == len(truth)
    assert here.read_bytes() == b"brought by gpurun logs\n" and store.load(run.run_id).generation is None


def test_of_a_line_that_is_written_over_the_newest_text_is_shown_without_control_sequences() -> None:
    log = b"one\n\n 10%|#   |\r 20%|##  |\r\n\x1b[31mred\x1b[0m \x1b]0;title\x07end\n\xff\xfe"
    assert last_lines(log, 9) == ["one", "20%|##  |", "red end", "\ufffd\ufffd"]
    assert last_lines(log, 1) == ["\ufffd\ufffd"] and last_lines(log, 0) == []
