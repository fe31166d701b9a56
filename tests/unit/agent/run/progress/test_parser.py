"""Whatever the bytes of a log are, and wherever they are cut: the same is read of them, nothing is raised, little is remembered."""

import math
import random
import sys
import time
from pathlib import Path

import pytest

from remote_payload.agent.run.progress.lines import LONGEST, Lines
from remote_payload.agent.run.progress.parser import Parser
from remote_payload.agent.run.progress.patterns import problem
from remote_payload.agent.run.progress.told import MOST_FIELDS

LOGS = [path.read_bytes() for path in sorted(Path(__file__).with_name("logs").iterdir())]
PROGRESS = (["auto"], ["trainer"], ["lightning", "tqdm"], ["nanogpt", r"(?P<step>\d+)\D+(?P<loss>\S+)"])
HOSTILE = (
    b"\xff\xfe\x00", b"\x1b[31m", b"\x1b[", b"\r", b"\n", b"\r\n", b"{'loss': ", b"'epoch': '9e999'}", b"{'", b"}" * 9, b"%|", b"| ",
    b"100%|###| ", b"9" * 50, b"1e400", b"-nan", b"9999999999999999999/1 [", b"[00:00<?, ?it/s]", b"Epoch 999999/0: ", b"step ",
    b"iter 0: loss ", b"loss=", b", " * 400, b"a=1, " * 200, b"x" * (2 * LONGEST), b"max_iters = 0\n", "\u2588\U0001f916".encode(),
    b"[", b"]", b"1.20k/", b"0/0 ", b"eval_loss", b"val_loss=nan",
)  # fmt: skip


def hostile_log(dice):
    """Real lines and parts of lines in any order, with bytes changed."""
    parts = []
    for _ in range(dice.randrange(1, 40)):
        log = dice.choice(LOGS)
        start = dice.randrange(len(log))
        real = bytearray(log[start : start + dice.randrange(300)])
        for _ in range(dice.choice((0, 0, 3))):
            if real:
                real[dice.randrange(len(real))] = dice.randrange(256)
        parts.append(dice.choice((bytes(real), dice.choice(HOSTILE))))
    return b"".join(parts)


def read(written, pieces):
    parser = Parser(written)
    seen = [each for piece in pieces for each in parser.feed(piece)]
    return [*seen, *parser.rest()]


def cut(dice, log):
    places = sorted(dice.randrange(len(log) + 1) for _ in range(dice.choice((1, 5, 200))))
    return [log[start:end] for start, end in zip([0, *places], [*places, len(log)], strict=True)]


@pytest.mark.parametrize("seed", range(60))
def test_any_log_cut_anywhere_tells_the_same_and_only_what_an_event_can_have(seed):
    dice = random.Random(seed)
    log, written = hostile_log(dice), dice.choice(PROGRESS)
    whole = read(written, [log])
    assert read(written, cut(dice, log)) == whole
    for each in whole:
        assert 0 < each.end <= len(log)
        fields = {**each.told.step, **each.told.evaluation}
        assert len(fields) <= MOST_FIELDS + 8
        assert all(value is None or math.isfinite(value) for value in fields.values())
        assert each.told.step.get("step") is None or isinstance(each.told.step["step"], int)


@pytest.mark.parametrize("log", LOGS, ids=range(len(LOGS)))
def test_a_reader_that_goes_on_behind_a_line_reads_the_rest(log):
    lines = list(Lines().feed(log))
    middle = lines[len(lines) // 2].end
    assert list(Lines(middle).feed(log[middle:])) == lines[len(lines) // 2 + 1 :]


def test_a_jump_into_the_middle_of_a_line_does_not_read_its_end_as_a_line():
    lines = Lines()
    list(lines.feed(b"iter 1"))
    lines.jump(100)
    assert [line.text for line in lines.feed(b"0: loss 3\niter 2: loss 2\n")] == ["", "iter 2: loss 2"]


def test_a_line_without_an_end_is_remembered_up_to_its_limit():
    lines = Lines()
    for _ in range(100):
        assert list(lines.feed(b"x" * 100_000)) == []
    assert sys.getsizeof(lines._begun) < LONGEST + 100
    assert [len(line.text) for line in lines.feed(b"\n")] == [LONGEST]


@pytest.mark.parametrize(
    "piece", [*HOSTILE, b"a=1, ", b"(((", b"1,1,", b"'a': '1', ", b"loss 1 ", b"step 1 loss ", b" " * 9, b"Epoch: "]
)
def test_no_line_costs_much(piece):
    """A line of the limit's length, made of one piece repeated, takes as long as a line may: no form is catastrophic."""
    for begin in (b"", b"step 1: loss ", b"{'loss': '1', ", b"Epoch 1:  40%|###| 8/20 [00:00<00:00, 25.1it/s, "):
        log = (begin + (piece.replace(b"\n", b" ").replace(b"\r", b" ") * LONGEST))[:LONGEST] + b"\n"
        began = time.process_time()
        read(["auto"], [log] * 5)
        assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("written", "number", "says"),
    [
        ((), 0, "name a preset"),
        (("trainr",), 0, "there is no preset 'trainr'"),
        (("auto", "tqdm"), 0, "auto stands alone"),
        (("tqdm", "off"), 1, "off stands alone"),
        ((r"(?P<loss>\S+",), 0, "missing ), unterminated subpattern, at its character 1"),
        ((r"loss=(?P<loss>\S+)",), 0, "no pattern has a group called step (it has loss)"),
        ((r"(?P<iter>\d+)",), 0, "write (?P<step>…) in place of (?P<iter>…)"),
        (("nanogpt", r"a (b)"), 1, "the pattern has no named group"),
        ((r"(?P<step>1)(?P<type>2)",), 0, "a group cannot be called type"),
        (("(?P<step>1)" * 200,), 0, "more than 1000 characters"),
    ],
)
def test_what_is_wrong_with_progress_is_said(written, number, says):
    found = problem(written)
    assert found is not None and found[0] == number and says in found[1]


@pytest.mark.parametrize(
    "written",
    [("auto",), ("off",), ("trainer", "nanogpt"), (r"(?P<step>\d+)", r"(?P<total>\d+)"), ("tqdm", r"x(?P<loss>.)")],
)
def test_what_is_right_is_taken(written):
    assert problem(written) is None
