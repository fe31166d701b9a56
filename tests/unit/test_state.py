"""The table of states, replayed from facts: no processes, no clock."""

import itertools

import pytest

from remote_payload.agent import state
from remote_payload.agent.processes import Process
from remote_payload.agent.protocol import ExitRecord
from remote_payload.agent.state import Facts, derive
from runner.domain.status import Status

RUN = "x-20260102-142030-7f3a"
OWNER = {"pid": 7, "start": 100, "boot_id": "b", "first_start": 50, "payload": {"pid": 8, "start": 101}}
HERE = {"boot_id": "b", "first_start": 50}
ALIVE = Process(8, 7, 8, "S", 101, "python")
STOPPED = ALIVE._replace(state="T")


def facts(**given):
    return Facts(RUN, **{"owner": OWNER, **HERE, **given})


TABLE = [
    # what is seen → phase, outcome, cause, orphaned, stalled
    ("exit 0", {"slot": ExitRecord("exit", 0, 1.0)}, "finished", "succeeded", None, False, False),
    ("exit 3", {"slot": ExitRecord("exit", 3, 1.0)}, "finished", "failed", "exit 3", False, False),
    ("signal 9", {"slot": ExitRecord("signal", 9, 1.0)}, "finished", "failed", "signal 9", False, False),
    ("time limit", {"slot": ExitRecord("timeout", 143, 1.0)}, "finished", "timed_out", "time_limit", False, False),
    (
        "stopped, with exit 0",
        {"slot": ExitRecord("cancelled", 0, 1.0)},
        "finished",
        "cancelled",
        "stopped",
        False,
        False,
    ),
    (
        "supervisor said why",
        {"slot": ExitRecord("exit", 1, 1.0), "ended": {"cause": "cuda_oom"}},
        "finished",
        "failed",
        "cuda_oom",
        False,
        False,
    ),
    (
        "exit while still held",
        {"slot": ExitRecord("exit", 0, 1.0), "held": True},
        "finished",
        "succeeded",
        None,
        False,
        False,
    ),
    (
        "exit, then a restart",
        {"slot": ExitRecord("exit", 0, 1.0), "boot_id": "c"},
        "finished",
        "succeeded",
        None,
        False,
        False,
    ),
    ("running", {"held": True, "members": (ALIVE,)}, "running", None, None, False, False),
    ("running, nobody seen yet", {"held": True}, "running", None, None, False, False),
    ("claimed, no supervisor yet", {"held": True, "owner": None}, "prepared", None, None, False, False),
    (
        "waits for a GPU",
        {"held": True, "owner": {**OWNER, "payload": None, "waiting": "…"}},
        "prepared",
        None,
        None,
        False,
        False,
    ),
    ("about to start", {"held": True, "owner": {**OWNER, "payload": None}}, "launched", None, None, False, False),
    ("lock's file removed", {"supervisor": True, "members": (ALIVE,)}, "running", None, None, False, False),
    ("payload stopped", {"held": True, "members": (STOPPED,)}, "running", None, None, False, True),
    ("one of two stopped", {"held": True, "members": (STOPPED, ALIVE)}, "running", None, None, False, False),
    ("supervisor killed", {"members": (ALIVE,)}, "running", None, None, True, False),
    ("supervisor killed, payload stopped", {"members": (STOPPED,)}, "running", None, None, True, True),
    ("box rebooted", {"boot_id": "c", "first_start": 20}, "finished", "interrupted", "box_restarted", False, False),
    ("container restarted", {"first_start": 90}, "finished", "interrupted", "box_restarted", False, False),
    (
        "restarted before it was confirmed",
        {"owner": {**OWNER, "payload": None}, "boot_id": "c"},
        "finished",
        "interrupted",
        "box_restarted",
        False,
        False,
    ),
    ("nobody left, no exit", {}, "finished", "lost", "vanished", False, False),
    ("PID 1 not told", {"first_start": None}, "finished", "lost", "vanished", False, False),
    ("claimer died", {"owner": None}, "finished", "lost", "not_started", False, False),
    ("folder deleted", {"folder": False, "owner": None}, "finished", "lost", "folder_deleted", False, False),
    (
        "folder deleted, still running",
        {"folder": False, "owner": None, "held": True, "members": (ALIVE,)},
        "running",
        None,
        None,
        False,
        False,
    ),
    (
        "folder deleted, orphaned",
        {"folder": False, "owner": None, "members": (ALIVE,)},
        "running",
        None,
        None,
        True,
        False,
    ),
]


@pytest.mark.parametrize(
    ("seen", "given", "phase", "outcome", "cause", "orphaned", "stalled"), TABLE, ids=[row[0] for row in TABLE]
)
def test_what_is_seen_becomes_this_status(seen, given, phase, outcome, cause, orphaned, stalled):
    status = derive(facts(**given))
    assert status["phase"] == phase
    assert (status.get("outcome"), status.get("cause")) == (outcome, cause)
    assert (status["orphaned"], status["stalled"]) == (orphaned, stalled)


def every_combination():
    slots = (
        None,
        ExitRecord("exit", 0, 1.0),
        ExitRecord("exit", 1, 1.0),
        ExitRecord("signal", 15, 1.0),
        ExitRecord("cancelled", 143, 1.0),
    )
    owners = (None, {**OWNER, "payload": None}, {**OWNER, "payload": None, "waiting": "…"}, OWNER)
    identities = (("b", 50), ("b", 90), ("c", 20), (None, None))
    for slot, held, owner, (boot, first), supervisor, members, folder in itertools.product(
        slots, (False, True), owners, identities, (False, True), ((), (ALIVE,), (STOPPED,)), (False, True)
    ):
        yield Facts(RUN, folder, slot, held, owner, boot, first, supervisor, members)


def test_no_combination_of_facts_is_called_dead_while_something_lives_or_alive_once_all_is_over():
    combinations = list(every_combination())
    assert len(combinations) > 1900
    for seen in combinations:
        status = derive(seen)
        Status.parse({"run_id": RUN, **status})
        lives = seen.held or seen.supervisor
        if seen.slot is not None:
            assert status["phase"] == "finished"
        elif lives:
            assert status["phase"] != "finished"
        elif not seen.members:
            assert status["phase"] == "finished"
            assert status["outcome"] in ("lost", "interrupted")


def test_a_clock_that_was_moved_changes_nothing():
    for at in (0.0, 1e9, 4e9):
        assert derive(facts(slot=ExitRecord("exit", 0, at)))["outcome"] == "succeeded"
    assert derive(facts(held=True, owner={**OWNER, "started_at": 9e9}))["phase"] == "running"


def test_a_recycled_pid_is_not_the_supervisor():
    me = state.processes.read(__import__("os").getpid())
    box = state.Box()
    assert state._supervisor_lives({"pid": me.pid, "start": me.start, "boot_id": box.boot_id}, box)
    assert not state._supervisor_lives({"pid": me.pid, "start": me.start - 1, "boot_id": box.boot_id}, box)
    assert not state._supervisor_lives({"pid": me.pid, "start": me.start, "boot_id": "another"}, box)
