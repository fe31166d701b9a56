"""``owner.json`` and ``launch.json``: what is written is read again, what an older gpurun wrote too, and damage costs one field."""

import json
import os
from pathlib import Path

import pytest

from remote_payload.agent.box.gpus import Gpu
from remote_payload.agent.run import order, owner
from remote_payload.agent.run.order import LaunchFile, Order, Start
from remote_payload.agent.run.owner import Owner, Payload
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import RunPaths

RUN = "x-20260102-142030-7f3a"
RESUME = {"run_id": RUN, "checkpoint": "auto"}
# As gpurun wrote them before these files had types.
OLD_OWNER = {
    "boot_id": "b1", "first_start": 50, "gpus": [0, 1], "oom_kills": 3, "payload": {"autogroup": "/autogroup-9", "pid": 8, "start": 101},
    "pid": 7, "start": 100, "started_at": 1764000000.25,
}  # fmt: skip
OLD_WAITING = {
    "boot_id": "b1",
    "first_start": 50,
    "oom_kills": None,
    "pid": 7,
    "start": 100,
    "waiting": "waiting for 1 GPU",
}
OLD_LAUNCH = {
    "argv": ["python", "-m", "remote_payload.recipes.sft"], "environment": {"PATH": "/bin"}, "gpus": 2, "log_limit": 1024,
    "outputs": ["out"],
    "queue": False, "resume": {"checkpoint": "auto", "run_id": RUN}, "time_limit": None,
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / RUN
    folder.mkdir()
    return RunPaths(str(folder))


def test_an_owner_is_read_as_it_was_written(run):
    for written in (
        Owner(7, 100, "b", 50, 3, None, Payload(8, 101, "/autogroup-9"), (0, 1), 1.5),
        Owner(7, 100, waiting="waiting for 1 GPU"),
        Owner(7, 100, payload=Payload(8, 0)),
        Owner(7, 100, box_id="k3x9"),
    ):
        owner.write(run, written)
        assert owner.read(run) == written


def test_the_owner_of_a_run_that_an_older_gpurun_started_is_read(run):
    Path(run.owner).write_text(json.dumps(OLD_OWNER))
    assert owner.read(run) == Owner(7, 100, "b1", 50, 3, None, Payload(8, 101, "/autogroup-9"), (0, 1), 1764000000.25)
    Path(run.owner).write_text(json.dumps(OLD_WAITING))
    assert owner.read(run) == Owner(7, 100, "b1", 50, waiting="waiting for 1 GPU")


@pytest.mark.parametrize(
    ("field", "value", "default"),
    [
        ("boot_id", 5, None), ("first_start", -1, None), ("oom_kills", True, None), ("waiting", "", None), ("payload", {"pid": 8}, None),
        ("payload", [8], None), ("gpus", "0", ()), ("started_at", -5, None), ("started_at", "x", None),
    ],
)  # fmt: skip
def test_a_damaged_value_costs_its_own_field_alone(run, field, value, default):
    Path(run.owner).write_text(json.dumps({**OLD_OWNER, field: value}))
    found = owner.read(run)
    assert getattr(found, field) == default and (found.pid, found.start) == (7, 100)


@pytest.mark.parametrize("damaged", ["", "[]", "{}", '{"pid": 7}', '{"pid": true, "start": 100}', '{"pid": 7, "start"'])
def test_a_file_without_a_supervisor_is_no_owner(run, damaged):
    Path(run.owner).write_text(damaged)
    assert owner.read(run) is None


def test_this_process_can_be_found_by_what_is_written_of_it(run):
    owner.write(run, owner.this_process())
    assert owner.read(run).pid == os.getpid() and owner.read(run).start > 0


def test_a_launch_is_read_as_it_was_written_and_as_an_older_gpurun_wrote_it(run):
    launch = LaunchFile(("python",), {"A": "1"}, ("out",), 2, True, 60.0, 1024, RESUME)
    order.write_launch(run, launch)
    assert order.read_launch(run) == launch
    assert set(json.loads(Path(run.launch).read_text())) >= set(OLD_LAUNCH)  # an older gpurun reads it too
    Path(run.launch).write_text(json.dumps(OLD_LAUNCH))
    found = order.read_launch(run)
    assert found == LaunchFile(tuple(OLD_LAUNCH["argv"]), {"PATH": "/bin"}, ("out",), 2, False, None, 1024, RESUME)


@pytest.mark.parametrize("damaged", ["", "{", '{"argv": "true"}', '{"argv": [], "environment": {"A": 1}}'])
def test_a_damaged_launch_is_none(run, damaged):
    Path(run.launch).write_text(damaged)
    assert order.read_launch(run) is None


def test_the_order_arrives_whole_and_shows_no_secret():
    told = Order(
        "/root", "/root/runs/" + RUN, 5, (1,), (Gpu(1, "GPU-1", "x", 10, 1, None),), {"WANDB_API_KEY": "canary"}
    )
    assert order.decode_order(told.encode()) == told
    assert "canary" not in repr(told) and "canary" not in str(told)


def test_the_answer_of_a_supervisor_is_a_start_or_why_there_is_none():
    for start in (Start(), Start("no room", 28), Start("no room")):
        assert order.decode_start(start.encode()) == start
    assert order.decode_start(b"\n") is None
    with pytest.raises(AgentError):
        order.decode_start(b'{"error": 5}')
