"""The status of a run: facts collected from the box, and the one function that derives a state from them.

``derive`` is pure, so that tests replay every combination of facts. ``alive`` decides which processes of the run exist. No clock and no
file is trusted: each file may have been damaged or removed.
"""

import os
import time
from typing import TYPE_CHECKING, Any, Dict, NamedTuple, Optional, Tuple

from remote_payload.agent.box import cgroup
from remote_payload.agent.run import alive, causes, events, owner, slot
from remote_payload.agent.run.alive import Box, Life
from remote_payload.agent.run.causes import Explanation
from remote_payload.agent.run.owner import Owner
from remote_payload.agent.run.slurm import files as slurm_files
from remote_payload.agent.wire.paths import RunPaths
from remote_payload.agent.wire.protocol import SLOT_KINDS, ExitRecord

if TYPE_CHECKING:
    from remote_payload.agent.run.slurm.table import Verdict
    from remote_payload.agent.wire.answers import State, Status

ALMOST_NOTHING = 1 << 20  # bytes
OUTCOMES = {
    "timeout": ("timed_out", "time_limit"),
    "budget": ("timed_out", "cost_limit"),
    "cancelled": ("cancelled", "stopped"),
}


class Facts(NamedTuple):
    """What the box shows of one run."""

    run_id: str
    folder: bool = True  # runs/<id> is there
    slot: Optional[ExitRecord] = None  # how it ended, None while there is no record
    life: Life = Life(False, None, ())
    owner: Optional[Owner] = None
    started: bool = False  # the slot, the log or the events show that the payload was started
    restarted: bool = False  # the box or its container was restarted since the owner was written
    ended: Optional[Dict[str, Any]] = None  # the supervisor's last event
    damaged: bool = False  # the files that would show whether the payload was started are damaged or removed
    slurm: "Optional[Verdict]" = None  # what shows of it where it is a Slurm job


def derive(facts: Facts) -> "State":
    """Phase, outcome and cause, whether the run is orphaned or stalled; from facts alone."""
    life = facts.life
    orphaned = bool(life.members) and not life.supervised
    if facts.slot is not None:
        return _finished(*_ending(facts.slot, facts.ended), orphaned=orphaned)
    if facts.slurm is not None:
        return _of_slurm(facts.slurm, facts)
    if life.anything:
        return _going("running" if orphaned else _phase(facts), facts, orphaned)
    if facts.owner is not None and facts.restarted:
        return _finished("interrupted", "box_restarted")
    if not facts.folder:
        return _finished("lost", "folder_deleted")
    # "not_started" promises that the payload never ran: it needs files that show it.
    return _finished("lost", "vanished" if _was_started(facts) or facts.damaged else "not_started")


def _of_slurm(seen: "Verdict", facts: Facts) -> "State":
    """A Slurm job's own table; the owner's record shows whether the program has begun."""
    if seen.outcome is not None:
        return _finished(seen.outcome, seen.cause)
    begun = facts.owner is not None and facts.owner.payload is not None
    phase = "launched" if seen.phase == "running" and not begun else seen.phase
    return {"phase": phase, "outcome": None, "cause": None, "orphaned": False, "stalled": seen.stalled}


def _going(phase: str, facts: Facts, orphaned: bool) -> "State":
    return {"phase": phase, "outcome": None, "cause": None, "orphaned": orphaned, "stalled": _stalled(facts.life)}


def _finished(outcome: str, cause: Optional[str], orphaned: bool = False) -> "State":
    return {"phase": "finished", "outcome": outcome, "cause": cause, "orphaned": orphaned, "stalled": False}


def _ending(record: ExitRecord, ended: Optional[Dict[str, Any]]) -> Tuple[str, Optional[str]]:
    if record.kind in OUTCOMES:
        return OUTCOMES[record.kind]
    if record.kind == "exit" and record.number == 0:
        return "succeeded", None
    cause = ended.get("cause") if ended else None
    return "failed", cause if isinstance(cause, str) else "%s %d" % (record.kind, record.number)


def _phase(facts: Facts) -> str:
    if not facts.folder or _was_started(facts):
        return "running"
    if facts.owner is None:  # not written yet; or damaged, and a supervisor is there that may have started the payload
        return "prepared" if facts.life.supervisor is None else "launched"
    return "prepared" if facts.owner.waiting else "launched"


def _was_started(facts: Facts) -> bool:
    """Whether the payload was started. Where ``owner.json`` is damaged, the slot, the log and the processes may still show it.

    While ``owner.json`` can be read, a process that it does not name is the payload's fork: it executes once it is written down.
    """
    written = facts.owner.payload is not None if facts.owner else bool(facts.life.members)
    return facts.started or written


def _stalled(life: Life) -> bool:
    """Whether all its processes are stopped (a debugger, SIGSTOP, a frozen container)."""
    return bool(life.members) and all(process.state in "Tt" for process in life.members)


def collect(run: RunPaths, box: Box) -> Facts:
    """The facts of one run. The slot is read again after the processes: the run may have ended meanwhile."""
    record, recorded = slot.read(run), owner.read(run)
    if record is not None:
        ended = events.last(run.events).get("ended")
        life = alive.of(run, box) if ended is None or ended.get("survivors") else Life(False, None, ())
        return Facts(run.run_id, slot=record, owner=recorded, ended=ended, life=life)
    life = alive.of(run, box)
    record, recorded = slot.read(run), owner.read(run)
    ended = events.last(run.events).get("ended") if record is not None or not life.anything else None
    return Facts(
        run.run_id,
        folder=os.path.isdir(run.folder),
        slot=record or _exit_in_event(ended),
        life=life,
        owner=recorded,
        started=slot.was_started(run) or log_identity(run.log)[0] > 0 or log_identity(run.events)[0] > 0,
        restarted=recorded is not None and box.restarted_since(recorded),
        ended=ended,
        damaged=recorded is None and not _shows_no_start(run),
        slurm=box.slurm_verdict(run) if record is None and slurm_files.is_slurm(run) else None,
    )


def _shows_no_start(run: RunPaths) -> bool:
    """Whether the files show that no payload was started: the slot is as it was allocated, or no supervisor wrote anything."""
    written = (run.exit_slot, run.owner, run.log, run.events)
    return slot.is_empty(run) or not any(map(os.path.lexists, written))


def exit_of(run: RunPaths) -> Optional[ExitRecord]:
    """How a run without processes ended, None where there is no record."""
    return slot.read(run) or _exit_in_event(events.last(run.events).get("ended"))


def _exit_in_event(ended: Optional[Dict[str, Any]]) -> Optional[ExitRecord]:
    """The exit in the supervisor's last event: for a slot that was damaged or removed afterwards."""
    value = ended.get("exit") if ended else None
    if not isinstance(value, dict) or value.get("kind") not in SLOT_KINDS or not isinstance(value.get("number"), int):
        return None
    at = ended.get("t") if ended else None
    return ExitRecord(value["kind"], value["number"], float(at) if isinstance(at, (int, float)) else 0.0)


def status_of(run: RunPaths, box: Optional[Box] = None) -> "Status":
    """The status of one run, as ARCHITECTURE.md lists it."""
    facts = collect(run, box or Box())
    state, recorded, record, progress = derive(facts), facts.owner, facts.slot, events.last(run.events)
    finished = state["phase"] == "finished"
    log_size, log_generation = log_identity(run.log)
    status: "Status" = {
        **state,
        "run_id": run.run_id,
        "exit": {"kind": record.kind, "number": record.number, "at": record.at} if record else None,
        "pid": recorded.payload.pid if recorded and recorded.payload else None,
        "gpus": list(recorded.gpus) if recorded else [],
        "started_at": recorded.started_at if recorded else None,
        "ended_at": record.at if record else _last_sign(run) if finished else None,
        "now": time.time(),  # by the clock that the other times are from: the laptop's may be hours apart
        "progress": progress,
        "log_size": log_size,
        "generation": log_generation,
        "evidence": _what_it_waits_for(facts, state),
        "advice": None,
    }
    shown = explain(run, state, facts, progress.get("ended") or {}) if finished else None
    if shown is not None:
        status["cause"], status["evidence"], status["advice"] = shown
    return status


def _what_it_waits_for(facts: Facts, state: "State") -> Optional[str]:
    if facts.slurm is not None:
        return facts.slurm.evidence
    return facts.owner.waiting if facts.owner and state["phase"] == "prepared" else None


def explain(run: RunPaths, state: "State", facts: Facts, ended: Dict[str, Any]) -> Optional[Explanation]:
    """The line of the log that shows why a finished run did not succeed, and what to change; None where no line can show it.

    The cause is the state's own, but for a failed run whose supervisor did not live to write one.
    """
    outcome, cause, record = state["outcome"], state["cause"], facts.slot
    if outcome in ("succeeded", "cancelled", "interrupted") or cause is None:
        return None  # no line of the log can tell of a box that was restarted
    if record is not None and ended.get("evidence"):
        return Explanation(cause, ended["evidence"], ended.get("advice"))
    if cause == "not_started" or facts.slurm is not None:
        return None  # what Slurm says stands there already
    oom_kills = oom_kills_since(facts.owner.oom_kills if facts.owner else None)
    found = causes.explain(record, causes.tail(run.log), oom_kills, disk_is_full(run.folder))
    if outcome == "timed_out" and found.advice is None:
        return None  # a step like any other, during which the time was over
    return found if record is not None and outcome == "failed" else found._replace(cause=cause)


def oom_kills_since(before: Optional[int]) -> int:
    """How many processes of the container the kernel has ended because memory ran out, since it had ended ``before``."""
    now = cgroup.oom_kills()
    return max(0, now - before) if now is not None and before is not None else 0


def disk_is_full(folder: str) -> bool:
    """Whether the filesystem of ``folder`` has less than ALMOST_NOTHING free."""
    try:
        space = os.statvfs(folder)
    except OSError:
        return False
    return space.f_bavail * space.f_frsize < ALMOST_NOTHING


def _last_sign(run: RunPaths) -> Optional[float]:
    """When a run without an exit record last wrote anything."""
    times = []
    for path in (run.log, run.events, run.owner):
        try:
            times.append(os.stat(path).st_mtime)
        except OSError:
            continue
    return max(times) if times else None


def log_identity(path: str) -> Tuple[int, str]:
    """The log's size and generation: another generation means another file under its name, and offsets start anew."""
    try:
        found = os.stat(path)
    except OSError:
        return 0, ""
    return found.st_size, generation(found)


def generation(found: os.stat_result) -> str:
    """The identity of a log file."""
    return "%x-%x" % (found.st_dev, found.st_ino)
