"""GPUs that are set aside: which ends of runs count, and what ends it. The GPUs are numbers; files, clock and kernel are real."""

import json

import pytest

from remote_payload.agent.box.files import read_json
from remote_payload.agent.box.gpus import Gpu
from remote_payload.agent.run.queue import health
from remote_payload.agent.run.queue.health import End
from remote_payload.agent.wire.paths import BoxPaths

pytestmark = pytest.mark.stand_in

ONE, OTHER = (Gpu(n, f"GPU-{n}", "H100", 80 << 30, 0, 0) for n in range(2))


def failed(run_id, after=5.0, cause=health.DEVICE_ERROR):
    return End(run_id, False, cause, after, "CUDA error: uncorrectable ECC error encountered")


@pytest.fixture
def paths(tmp_path):
    return BoxPaths(str(tmp_path / "root"))


def test_two_different_runs_that_a_gpu_fails_at_once_set_it_aside_and_it_alone(paths):
    assert health.note_end(paths, [ONE], failed("first")) == [] and health.set_aside(paths) == {}
    (note,) = health.note_end(paths, [ONE], failed("second"))
    assert health.set_aside(paths) == {"GPU-0": note}
    assert note.in_words() == (
        "GPU 0 is set aside: first and second failed on it at once (CUDA error: uncorrectable ECC error encountered)"
    )


@pytest.mark.parametrize("second", [failed("first"), failed("b", after=61.0), failed("b", cause="exit 1")])
def test_the_same_run_a_late_failure_or_one_of_the_program_do_not(paths, second):
    health.note_end(paths, [ONE], failed("first"))
    assert health.note_end(paths, [ONE], second) == [] and health.set_aside(paths) == {}


@pytest.mark.parametrize("between", [End("b", True, None, 3.0, ""), End("b", False, "exit 1", 400.0, "")])
def test_a_run_that_the_gpu_served_well_in_between_counts_for_it(paths, between):
    health.note_end(paths, [ONE], failed("first"))
    health.note_end(paths, [ONE], between)
    assert health.note_end(paths, [ONE], failed("third")) == []


def test_a_run_that_was_stopped_at_once_says_nothing_of_its_gpu(paths):
    health.note_end(paths, [ONE], failed("first"))
    health.note_end(paths, [ONE], End("stopped", False, None, 3.0, ""))
    assert health.note_end(paths, [ONE], failed("third")) != []


def test_of_runs_with_several_gpus_the_one_that_both_had_is_set_aside(paths):
    third = Gpu(2, "GPU-2", "H100", 80 << 30, 0, 0)
    health.note_end(paths, [ONE, OTHER], failed("first"))
    assert [note.number for note in health.note_end(paths, [OTHER, third], failed("second"))] == [1]


def test_a_restart_of_the_box_ends_it_and_a_command_does(paths):
    for gpu in (ONE, OTHER):
        for run in ("first", "second"):
            health.note_end(paths, [gpu], failed(run))
    assert (health.use_again(paths, 0), health.use_again(paths, 0)) == (True, False)
    assert set(health.set_aside(paths)) == {"GPU-1"}
    note = read_json(paths.gpus + "/GPU-1.json")
    with open(paths.gpus + "/GPU-1.json", "w") as file:
        json.dump({**note, "boot_id": "that of another start"}, file)
    assert health.set_aside(paths) == {}
    assert health.note_end(paths, [OTHER], failed("third")) == []  # what failed before the restart does not count


@pytest.mark.parametrize("content", ["", "[]", '{"name": 5}', '{"name": "GPU-0", "number": 0, "runs": 7}'])
def test_a_damaged_note_is_none(paths, content):
    for run in ("first", "second"):
        health.note_end(paths, [ONE], failed(run))
    with open(paths.gpus + "/GPU-0.json", "w") as file:
        file.write(content)
    assert health.set_aside(paths) == {}
