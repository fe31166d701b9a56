"""The table of states of a run that is a Slurm job: docs/slurm.md has the same rows."""

import itertools

import pytest

from remote_payload.agent.box.slurm import GOING, PENDING, Job
from remote_payload.agent.run.slurm.files import FRESH
from remote_payload.agent.run.slurm.table import ABSENCE, ENDS, SETTLED, Seen, judge


def listed(state: str, reason: str = "Resources", starts: "float | None" = None) -> Job:
    return Job(7, state, starts, None, "n1", reason)


OLD, NONE = FRESH + 1, None
TABLE = [
    # what is seen → phase, outcome, cause
    ("fresh", Seen(7, 1.0, True), ("running", None, None)),
    ("fresh, whatever was noted", Seen(7, 1.0, True, ended="TIMEOUT"), ("running", None, None)),
    ("pending", Seen(7, NONE, False, listed("PENDING")), ("prepared", None, None)),
    ("requeued", Seen(7, OLD, True, listed("PENDING", "BeginTime")), ("prepared", None, None)),
    ("starting", Seen(7, NONE, False, listed("CONFIGURING")), ("launched", None, None)),
    ("running, silent", Seen(7, OLD, True, listed("RUNNING")), ("running", None, None)),
    ("suspended", Seen(7, OLD, True, listed("SUSPENDED")), ("running", None, None)),
    ("scancel while it waits", Seen(7, NONE, False, listed("CANCELLED")), ("finished", "cancelled", "scancel")),
    ("scancel while it runs", Seen(7, OLD, True, listed("CANCELLED")), ("finished", "cancelled", "scancel")),
    ("time limit", Seen(7, OLD, True, listed("TIMEOUT")), ("finished", "timed_out", "time_limit")),
    ("node failed", Seen(7, OLD, True, listed("NODE_FAIL")), ("finished", "interrupted", "node_failed")),
    ("preempted", Seen(7, OLD, True, listed("PREEMPTED")), ("finished", "interrupted", "preempted")),
    ("out of memory", Seen(7, OLD, True, listed("OUT_OF_MEMORY")), ("finished", "failed", "host_oom")),
    ("supervisor killed", Seen(7, OLD, True, listed("FAILED")), ("finished", "lost", "vanished")),
    ("it could not start", Seen(7, NONE, False, listed("FAILED")), ("finished", "lost", "not_started")),
    ("no controller, waits", Seen(7, NONE, False, error="down"), ("prepared", None, None)),
    ("no controller, ran", Seen(7, OLD, True, error="down"), ("running", None, None)),
    (
        "no controller, after a status said cancelled",
        Seen(7, OLD, True, error="down", ended="CANCELLED", over=True),
        ("finished", "cancelled", "scancel"),
    ),
    (
        "no controller, after a status said gone",
        Seen(7, OLD, True, error="down", over=True),
        ("finished", "lost", "vanished"),
    ),
    (
        "said to be over, and started again by somebody",
        Seen(7, OLD, True, listed("PENDING"), over=True),
        ("prepared", None, None),
    ),
    ("one empty list, waits", Seen(7, NONE, False, absent=0.0), ("prepared", None, None)),
    ("one empty list, ran", Seen(7, 900.0, True, absent=0.0), ("running", None, None)),
    ("absent, a sign of life meanwhile", Seen(7, OLD, True, absent=ABSENCE), ("running", None, None)),
    ("gone", Seen(7, ABSENCE, True, absent=ABSENCE), ("finished", "lost", "vanished")),
    ("gone, never began", Seen(7, NONE, False, absent=ABSENCE), ("finished", "lost", "not_started")),
    (
        "gone, Slurm had said so",
        Seen(7, NONE, True, absent=ABSENCE, told=True),
        ("finished", "interrupted", "ended_by_slurm"),
    ),
    (
        "Slurm ended it, and shows the end of its script alone",
        Seen(7, NONE, True, listed("COMPLETED"), told=True),
        ("finished", "interrupted", "ended_by_slurm"),
    ),
    (
        "absent, its end is known",
        Seen(7, OLD, True, absent=1.0, ended="CANCELLED"),
        ("finished", "cancelled", "scancel"),
    ),
    ("a node failed, it may come back", Seen(7, OLD, True, listed("NODE_FAIL"), requeue=True), ("running", None, None)),
    (
        "it did not come back",
        Seen(7, OLD, True, listed("NODE_FAIL"), requeue=True, ended_for=SETTLED),
        ("finished", "interrupted", "node_failed"),
    ),
    (
        "a cancelled job does not come back",
        Seen(7, OLD, True, listed("CANCELLED"), requeue=True),
        ("finished", "cancelled", "scancel"),
    ),
]


@pytest.mark.parametrize(("seen", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_is_seen_is_the_state(seen: Seen, expected: "tuple[str, str | None, str | None]") -> None:
    verdict = judge(seen)
    assert (verdict.phase, verdict.outcome, verdict.cause) == expected


def every_seen() -> "list[Seen]":
    states = [None, *PENDING, *GOING, *ENDS, "COMPLETED", "FAILED", "SOMETHING_NEW"]
    return [
        Seen(7, heartbeat, began, None if state is None or error else listed(state), error, absent, ended, ended_for, told, requeue)
        for heartbeat, began, state, error, absent, ended, ended_for, told, requeue in itertools.product(
            (None, 0.0, FRESH, ABSENCE), (False, True), states, (None, "down"), (0.0, ABSENCE), (None, "TIMEOUT"), (0.0, SETTLED),
            (False, True), (False, True),
        )
    ]  # fmt: skip


def test_of_every_combination_a_live_run_is_never_over() -> None:
    for seen in every_seen():
        verdict = judge(seen)
        assert (verdict.phase == "finished") == (verdict.outcome is not None) == (not verdict.alive)
        lives = seen.heartbeat is not None and seen.heartbeat < FRESH
        going = seen.job is not None and seen.job.state in PENDING + GOING
        if lives or going or seen.error or (seen.job is None and seen.ended is None and seen.absent < ABSENCE):
            assert verdict.alive, seen


def test_of_every_combination_what_was_said_to_be_over_comes_back_only_where_the_job_itself_shows() -> None:
    for seen in every_seen():
        lives = seen.heartbeat is not None and seen.heartbeat < FRESH
        going = seen.job is not None and seen.job.state in PENDING + GOING
        assert judge(seen._replace(over=True)).alive == (lives or going), seen


def test_a_job_that_could_not_start_says_why() -> None:
    said = judge(Seen(7, job=listed("FAILED"), said="script: 4: exec: python3: not found")).evidence
    assert said == "Slurm's job 7 ended as FAILED: script: 4: exec: python3: not found"


def test_what_a_waiting_run_waits_for_is_said() -> None:
    said = judge(Seen(7, job=listed("PENDING", "Resources"))).evidence
    assert said == "waiting in Slurm's queue as job 7: Resources"
    assert "Slurm does not answer: down" in (judge(Seen(7, error="down")).evidence or "")
    assert "gone in 300 s" in (judge(Seen(7)).evidence or "")
