"""The table of states, replayed from facts: no processes, no clock."""

import itertools
import os
from pathlib import Path

import pytest

from remote_payload.agent.box.processes import Process
from remote_payload.agent.run import state
from remote_payload.agent.run.alive import Life
from remote_payload.agent.run.owner import Owner, Payload
from remote_payload.agent.run.state import Facts, derive
from remote_payload.agent.wire.paths import RunPaths
from remote_payload.agent.wire.protocol import ExitRecord
from runner.domain.answers.status import Status

RUN = "x-20260102-142030-7f3a"
OWNER = Owner(7, 100, "b", 50, payload=Payload(8, 101))
LAUNCHED = OWNER._replace(payload=None)
WAITING = LAUNCHED._replace(waiting="…")
SUPERVISOR = Process(7, 1, 7, "S", 100, "python")
ALIVE = Process(8, 7, 8, "S", 101, "python")
EXIT_0 = ExitRecord("exit", 0, 1.0)
STOPPED = ALIVE._replace(state="T")


def facts(held=False, supervisor=False, members=(), **given):
    life = Life(held, SUPERVISOR if supervisor else None, members)
    return Facts(RUN, **{"owner": OWNER, "life": life, **given})


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
        {"slot": ExitRecord("exit", 0, 1.0), "restarted": True},
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
        {"held": True, "owner": WAITING},
        "prepared",
        None,
        None,
        False,
        False,
    ),
    ("about to start", {"held": True, "owner": LAUNCHED}, "launched", None, None, False, False),
    ("lock's file removed", {"supervisor": True, "members": (ALIVE,)}, "running", None, None, False, False),
    ("payload stopped", {"held": True, "members": (STOPPED,)}, "running", None, None, False, True),
    ("one of two stopped", {"held": True, "members": (STOPPED, ALIVE)}, "running", None, None, False, False),
    ("supervisor killed", {"members": (ALIVE,)}, "running", None, None, True, False),
    ("supervisor killed, payload stopped", {"members": (STOPPED,)}, "running", None, None, True, True),
    ("box or container restarted", {"restarted": True}, "finished", "interrupted", "box_restarted", False, False),
    (
        "restarted before it was confirmed",
        {"owner": LAUNCHED, "restarted": True},
        "finished",
        "interrupted",
        "box_restarted",
        False,
        False,
    ),
    ("nobody left, no exit", {}, "finished", "lost", "vanished", False, False),
    ("supervisor killed while it waited", {"owner": WAITING}, "finished", "lost", "not_started", False, False),
    ("owner lost, its supervisor is there", {"owner": None, "supervisor": True}, "launched", None, None, False, False),
    ("owner lost, running", {"owner": None, "held": True, "started": True}, "running", None, None, False, False),
    ("owner lost, seen", {"owner": None, "held": True, "members": (ALIVE,)}, "running", None, None, False, False),
    ("owner lost, all over", {"owner": None, "started": True}, "finished", "lost", "vanished", False, False),
    (
        "exit 0, but it left something",
        {"slot": ExitRecord("exit", 0, 1.0), "members": (ALIVE,)},
        "finished",
        "succeeded",
        None,
        True,
        False,
    ),
    (
        "exit 0, what it left is being ended",
        {"slot": ExitRecord("exit", 0, 1.0), "held": True, "members": (ALIVE,)},
        "finished",
        "succeeded",
        None,
        False,
        False,
    ),
    ("seen from beside the container", {"restarted": True, "members": (ALIVE,)}, "running", None, None, True, False),
    ("owner and slot damaged", {"owner": None, "damaged": True}, "finished", "lost", "vanished", False, False),
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
    owners = (None, LAUNCHED, WAITING, OWNER)
    everything = itertools.product(
        slots,
        (False, True),
        owners,
        (False, True),
        (None, SUPERVISOR),
        ((), (ALIVE,), (STOPPED,)),
        *[(False, True)] * 2,
    )
    for slot, held, owner, restarted, supervisor, members, folder, started in everything:
        yield Facts(RUN, folder, slot, Life(held, supervisor, members), owner, started, restarted)


def test_no_combination_of_facts_is_called_dead_while_something_lives_or_alive_once_all_is_over():
    combinations = list(every_combination())
    assert len(combinations) > 1900
    for seen in combinations:
        status = derive(seen)
        Status.of_record({"run_id": RUN, **status})
        if seen.slot is not None:
            assert status["phase"] == "finished"
            assert status["orphaned"] == (bool(seen.life.members) and not seen.life.supervised)
        else:
            assert (status["phase"] == "finished") == (not seen.life.anything)
        if status["phase"] == "finished" and seen.slot is None:
            assert status["outcome"] in ("lost", "interrupted")
        if status["cause"] == "not_started" or status["phase"] == "prepared":
            assert not seen.started and (seen.owner or not seen.life.members)


def test_a_clock_that_was_moved_changes_nothing():
    for at in (0.0, 1e9, 4e9):
        assert derive(facts(slot=ExitRecord("exit", 0, at)))["outcome"] == "succeeded"
    assert derive(facts(held=True, owner=OWNER._replace(started_at=9e9)))["phase"] == "running"


def test_no_line_of_the_log_is_shown_for_a_box_that_was_restarted(tmp_path):
    run = RunPaths(str(tmp_path / "a-20260102-030405-abcd"))
    os.mkdir(run.folder)
    Path(run.log).write_text("step 47\n")
    finished = {"phase": "finished", "cause": "box_restarted"}
    for outcome, shown in (("interrupted", None), ("timed_out", None), ("lost", "step 47")):
        explained = state.explain(run, {**finished, "outcome": outcome}, Facts("x"), {})
        assert (explained and explained.evidence) == shown
