"""The process that reads a log for steps, run as the supervisor runs it; and its events."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from remote_payload.agent.run import events
from remote_payload.agent.run.progress.process import GAVE_UP, LogReader
from remote_payload.agent.run.progress.reader import READ_AT_ONCE, Reader
from remote_payload.agent.wire.paths import RunPaths
from tests.support.agent import run_id, wait_until

LOGS = Path(__file__).with_name("logs")


@pytest.fixture
def run(tmp_path):
    return new_run(tmp_path)


def new_run(folder, **job):
    run = RunPaths(str(folder / run_id()))
    os.makedirs(run.outputs)
    Path(run.job).write_text(json.dumps(job))
    Path(run.log).touch()
    Path(run.events).touch()
    return run


def write(run, data):
    with open(run.log, "ab") as log:
        log.write(data)


def told(run, kind="step", *names):
    found = [json.loads(line) for line in Path(run.events).read_text().splitlines()]
    of_kind = [event for event in found if event["type"] == kind]
    return [tuple(event.get(name) for name in names) for event in of_kind] if names else of_kind


class Beside:
    """A run's reader, with the children collected as a supervisor does."""

    def __init__(self, run):
        self.reader = LogReader(run)
        self.reader.start()

    def collect(self):
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        self.reader.collected(pid, status)

    def has_ended(self):
        self.collect()
        return self.reader._pid is None

    def finish(self):
        self.reader.finish(self.collect)
        wait_until(self.has_ended)


def test_steps_are_told_while_the_log_grows_and_the_rest_at_its_end(run):
    write(run, b"max_iters = 3\niter 1: loss 3.0, time 35.00ms\n")
    beside = Beside(run)
    wait_until(lambda: told(run))
    write(run, b"iter 2: loss 2.0, time 35.00ms\nstep 2: train loss 2.1, val loss 2.2\niter 3: loss 1.0, time 35.00ms")
    beside.finish()
    assert told(run, "step", "step", "total", "loss", "ms") == [(1, 3, 3.0, 35.0), (2, 3, 2.0, 35.0), (3, 3, 1.0, 35.0)]
    assert told(run, "eval", "name", "step", "metrics") == [("val", 2, {"loss": 2.2, "train_loss": 2.1})]


def test_a_program_that_ended_at_once_is_read_all_the_same(run):
    write(run, b"iter 7: loss 3.0")
    beside = Beside.__new__(Beside)
    beside.reader = LogReader(run)
    beside.finish()
    assert told(run, "step", "step", "loss") == [(7, 3.0)]


@pytest.mark.parametrize("job", [{"recipe": "sft"}, {"progress": ["off"]}])
def test_nothing_is_started_for_a_recipe_or_where_it_is_off(tmp_path, job):
    run = new_run(tmp_path, **job)
    write(run, b"iter 7: loss 3.0\n")
    beside = Beside(run)
    assert beside.reader._pid is None
    beside.finish()
    assert told(run) == []


def test_a_reader_that_begins_anew_goes_on_behind_what_was_told(run):
    write(run, b"iter 1: loss 3.0\niter 2: loss 2.0\n")
    first = Beside(run)
    wait_until(lambda: told(run, "step", "step") == [(2,)])
    assert first.reader._pid is not None
    os.kill(first.reader._pid, signal.SIGKILL)
    wait_until(first.has_ended)
    write(run, b"iter 2: loss 1.5\niter 3: loss 1.0\n")
    Beside(run).finish()
    assert told(run, "step", "step", "loss") == [(2, 2.0), (3, 1.0)]
    assert told(run)[-1]["log"] == os.path.getsize(run.log)


def test_steps_that_the_program_tells_itself_are_left_to_it(run):
    write(run, b"iter 1: loss 3.0\n")
    beside = Beside(run)
    wait_until(lambda: told(run))
    events.append(run.events, "step", step=5, total=9, loss=1.0)
    wait_until(beside.has_ended)
    write(run, b"iter 6: loss 0.5\n")
    beside.finish()
    assert told(run, "step", "step") == [(1,), (5,)]


def test_evaluations_that_the_program_tells_itself_are_left_to_it(run):
    events.append(run.events, "eval", name="mine", step=1, metrics={"loss": 1.0})
    write(run, b"step 2: train loss 2.1, val loss 2.2\niter 2: loss 2.0\n")
    Beside(run).finish()
    assert told(run, "eval", "name") == [("mine",)]
    assert told(run, "step", "step") == [(2,)]


def test_a_catastrophic_pattern_costs_the_reader_its_life_and_is_told(tmp_path):
    run = new_run(tmp_path, progress=[r"(?P<step>\d+)(a|aa)+$"])
    write(run, b"1" + b"a" * 100 + b"!\n")
    beside = Beside(run)
    wait_until(beside.has_ended)
    assert [event["message"] for event in told(run, "flag")] == [GAVE_UP]
    beside.finish()


def test_a_pattern_that_the_boxs_python_does_not_know_is_told(tmp_path):
    run = new_run(tmp_path, progress=["(?P<step>"])
    write(run, b"1\n")
    beside = Beside(run)
    wait_until(beside.has_ended)
    assert "means nothing to the box's Python" in told(run, "flag")[0]["message"]


def test_of_a_log_that_grows_too_fast_the_beginning_and_the_newest_part_are_read(run):
    write(run, b"max_iters = 9\n")
    reader = Reader(run, ["auto"])
    reader.round(last=False)
    reader.round(last=False)
    write(run, b"iter 1: loss 5.0\n" + b"noise " * READ_AT_ONCE + b"\niter 2: loss 4.0\n")
    began = time.process_time()
    reader.round(last=False)
    assert time.process_time() - began < 0.5
    assert told(run, "step", "step", "total") == [(2, 9)]


def test_at_most_one_step_a_round_and_its_loss_with_it(run):
    reader = Reader(run, ["auto"])
    write(run, (LOGS / "trainer-bar.log").read_bytes())
    reader.round(last=False)
    assert told(run, "step", "step", "loss")[-1] == (20, 3.032)  # whose step 24 is may still be drawn with a loss
    reader.round(last=True)
    assert [event["step"] for event in told(run)] == [10, 20, 24]
    last = events.last(run.events)["step"]
    assert (last["step"], last["total"], last["loss"]) == (24, 24, 3.032)


@pytest.mark.parametrize("piece", [40, 333, 1000])
def test_in_whatever_pieces_a_trainers_log_comes_no_step_is_told_twice_and_none_with_a_wrong_loss(run, piece):
    data = (LOGS / "trainer-bar.log").read_bytes()
    reader = Reader(run, ["auto"])
    for begin in range(0, len(data), piece):
        write(run, data[begin : begin + piece])
        reader.round(last=False)
    reader.round(last=True)
    steps = told(run, "step", "step")
    assert len(steps) == len(set(steps)) and steps == sorted(steps)
    losses = {step: loss for step, loss in told(run, "step", "step", "loss") if loss is not None}
    assert losses.items() <= {5: 3.034, 10: 3.032, 15: 3.035, 20: 3.032}.items()
    assert piece > 333 or len(losses) == 4
    assert told(run, "eval", "step") == [(10,), (20,), (24,)]


STATE = {
    "global_step": 10, "max_steps": 24, "epoch": 10 / 12, "logging_steps": 5,
    "log_history": [
        {"epoch": 5 / 12, "grad_norm": 0.7431132793426514, "learning_rate": 4.16e-05, "loss": 3.0336246490478516, "step": 5},
        {"epoch": 10 / 12, "grad_norm": 0.6887148022651672, "learning_rate": 3.125e-05, "loss": 3.0324523925, "step": 10},
        {"epoch": 10 / 12, "eval_loss": 3.026880979537964, "eval_runtime": 0.6863, "step": 10},
    ],
}  # fmt: skip


def save_state(run, state=STATE):
    folder = Path(run.outputs, "out", f"checkpoint-{state['global_step']}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trainer_state.json").write_text(json.dumps(state))


def test_a_trainer_without_a_bar_has_its_steps_from_its_checkpoints(run):
    first, second = (LOGS / "trainer-plain.log").read_bytes().split(b"Writing model shards: 100%", 1)
    reader = Reader(run, ["auto"])
    write(run, first)
    reader.round(last=False)
    assert told(run, "step", "step", "loss") == [(None, 3.032)]
    save_state(run)
    write(run, second)
    reader.round(last=True)
    assert told(run, "step", "step", "total", "loss")[1:] == [
        (5, 24, 3.0336246490478516), (10, 24, 3.0324523925), (20, 24, 3.032),
    ]  # fmt: skip
    assert told(run, "eval", "step", "metrics") == [
        (10, {"loss": 3.026880979537964}), (20, {"loss": 3.027}),
    ]  # fmt: skip


def test_a_trainers_checkpoint_doubles_no_step_that_its_bar_has_told(run):
    reader = Reader(run, ["auto"])
    write(run, (LOGS / "trainer-bar.log").read_bytes())
    reader.round(last=False)
    before = told(run)
    save_state(run)
    reader.round(last=True)
    assert told(run)[:-1] == before and told(run)[-1]["step"] == 24


def test_states_that_were_there_before_the_run_are_another_runs(run):
    save_state(run)
    reader = Reader(run, ["auto"])
    reader.round(last=True)
    assert told(run) == []


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"log_history": 3}', '{"log_history": [1, {"step": "x"}, {"step": 4}]}', "[" * 100_000]
)
def test_a_state_that_is_none_or_not_whole_harms_nothing(run, content):
    reader = Reader(run, ["trainer"])
    save_state(run)
    next(Path(run.outputs).rglob("trainer_state.json")).write_text(content)
    reader.round(last=True)
    assert all(event["step"] == 4 for event in told(run))
