"""What a run is doing: facts collected from the box, and the one table that turns them into a status (DESIGN, section 6).

``derive`` is pure, so that every combination is replayed in tests. No pid is trusted without its start time, and no clock
at all.
"""

import os
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from remote_payload.agent import causes, cgroup, events, locks, processes, slot
from remote_payload.agent.files import read_json
from remote_payload.agent.paths import BoxPaths, RunPaths, check_run_id
from remote_payload.agent.processes import Process
from remote_payload.agent.protocol import ExitRecord
from remote_payload.agent.request import Request

ALMOST_NOTHING = 1 << 20  # bytes
OUTCOMES = {"timeout": ("timed_out", "time_limit"), "cancelled": ("cancelled", "stopped")}


class Facts(NamedTuple):
    """What can be seen of one run."""

    run_id: str
    folder: bool = True  # runs/<id> is there
    slot: Optional[ExitRecord] = None  # what exit.slot says, None while it is empty
    held: bool = False  # somebody holds the run's lock
    owner: Optional[Dict[str, Any]] = None  # owner.json
    boot_id: Optional[str] = None  # now
    first_start: Optional[int] = None  # PID 1's, now
    supervisor: bool = False  # the supervisor's pid and start time are still together
    members: Tuple[Process, ...] = ()  # processes with the run's cookie
    ended: Optional[Dict[str, Any]] = None  # the supervisor's last event


def derive(facts: Facts) -> Dict[str, Any]:
    """Phase, outcome and cause, whether the run is orphaned or stalled; from facts alone."""
    if facts.slot is not None:
        return _finished(*_ending(facts.slot, facts.ended))
    alive = facts.held or facts.supervisor
    if not alive and facts.owner is not None and _restarted(facts):
        return _finished("interrupted", "box_restarted")
    if alive and facts.folder:
        return _going(_phase(facts.owner), facts)
    if facts.members:
        return _going("running", facts, orphaned=not alive)
    if alive:
        return _going("running", facts)
    if not facts.folder:
        return _finished("lost", "folder_deleted")
    return _finished("lost", "not_started" if facts.owner is None else "vanished")


def _going(phase: str, facts: Facts, orphaned: bool = False) -> Dict[str, Any]:
    return {"phase": phase, "outcome": None, "cause": None, "orphaned": orphaned, "stalled": _stalled(facts)}


def _finished(outcome: str, cause: Optional[str]) -> Dict[str, Any]:
    return {"phase": "finished", "outcome": outcome, "cause": cause, "orphaned": False, "stalled": False}


def _ending(record: ExitRecord, ended: Optional[Dict[str, Any]]) -> Tuple[str, Optional[str]]:
    if record.kind in OUTCOMES:
        return OUTCOMES[record.kind]
    if record.kind == "exit" and record.number == 0:
        return "succeeded", None
    cause = ended.get("cause") if ended else None
    return "failed", cause if isinstance(cause, str) else "%s %d" % (record.kind, record.number)


def _restarted(facts: Facts) -> bool:
    owner = facts.owner or {}
    if owner.get("boot_id") != facts.boot_id:
        return True
    recorded = owner.get("first_start")
    return isinstance(recorded, int) and facts.first_start is not None and facts.first_start > recorded


def _phase(owner: Optional[Dict[str, Any]]) -> str:
    if owner is None or owner.get("waiting"):
        return "prepared"
    return "running" if owner.get("payload") else "launched"


def _stalled(facts: Facts) -> bool:
    """Stopped (a debugger, SIGSTOP, a frozen container), not dead."""
    return bool(facts.members) and all(process.state in "Tt" for process in facts.members)


class Box:
    """One look at the box, shared by the facts of all runs: processes are read once."""

    def __init__(self) -> None:
        self.boot_id = processes.boot_id()
        self.first_start = processes.first_start()
        self._members: Optional[Dict[str, List[Process]]] = None

    def members(self, run_id: str) -> Tuple[Process, ...]:
        """Processes that carry the run's cookie."""
        if self._members is None:
            self._members = processes.by_cookie(processes.scan())
        return tuple(self._members.get(run_id, ()))


def collect(run: RunPaths, box: Box) -> Facts:
    """The facts of one run. The slot is read again at the end: what ended while we looked has ended."""
    record = slot.read(run)
    owner = read_json(run.owner)
    if record is not None:
        return Facts(run.run_id, slot=record, owner=owner, ended=events.last(run.events).get("ended"))
    facts = Facts(
        run.run_id,
        folder=os.path.isdir(run.folder),
        held=locks.is_held(locks.run_lock(run.run_id)),
        owner=owner,
        boot_id=box.boot_id,
        first_start=box.first_start,
        supervisor=_supervisor_lives(owner, box),
        members=box.members(run.run_id),
    )
    return facts._replace(owner=read_json(run.owner), slot=slot.read(run))


def _supervisor_lives(owner: Optional[Dict[str, Any]], box: Box) -> bool:
    """Its lock's file may have been removed (systemd empties a user's /dev/shm at logout): the process is still the process."""
    return bool(
        owner
        and owner.get("boot_id") == box.boot_id
        and processes.is_alive(owner.get("pid"), owner.get("start")) is not None
    )


def status_of(run: RunPaths, box: Optional[Box] = None) -> Dict[str, Any]:
    """The status of one run, as ARCHITECTURE.md lists it."""
    facts = collect(run, box or Box())
    owner = facts.owner or {}
    status = dict(derive(facts), run_id=run.run_id)
    record = facts.slot
    payload = owner.get("payload") or {}
    progress = events.last(run.events)
    status["exit"] = {"kind": record.kind, "number": record.number, "at": record.at} if record else None
    status["pid"] = payload.get("pid")
    status["gpus"] = owner.get("gpus") or []
    status["started_at"] = owner.get("started_at")
    status["ended_at"] = record.at if record else _last_sign(run) if status["phase"] == "finished" else None
    status["now"] = time.time()  # by the clock that the other times are from: the laptop's may be hours apart
    status["progress"] = progress
    status["log_size"], status["generation"] = log_identity(run.log)
    status.update(evidence=None, advice=None)
    status.update(_evidence(run, status, facts, owner, progress.get("ended") or {}))
    return status


def _evidence(
    run: RunPaths, status: Dict[str, Any], facts: Facts, owner: Dict[str, Any], ended: Dict[str, Any]
) -> Dict[str, Any]:
    """The line of the log that shows why, and what to change; the cause with it where no supervisor lived to say so."""
    if status["phase"] == "prepared":
        return {"evidence": owner.get("waiting") or None}
    if status["phase"] != "finished" or status["outcome"] in ("succeeded", "cancelled"):
        return {}
    if facts.slot is not None and ended.get("evidence"):
        return {"evidence": ended["evidence"], "advice": ended.get("advice")}
    if status["cause"] == "not_started":
        return {}
    found = causes.explain(facts.slot, causes.tail(run.log), oom_kills_since(owner), disk_is_full(run.folder))
    answer: Dict[str, Any] = {"evidence": found.evidence, "advice": found.advice}
    if facts.slot is not None and status["outcome"] == "failed":
        answer["cause"] = found.cause
    return answer


def oom_kills_since(owner: Dict[str, Any]) -> int:
    """Processes of the container that the kernel ended for want of memory since the run started."""
    now, before = cgroup.oom_kills(), owner.get("oom_kills")
    return max(0, now - before) if now is not None and isinstance(before, int) else 0


def disk_is_full(folder: str) -> bool:
    """Whether the filesystem of ``folder`` has next to nothing left."""
    try:
        space = os.statvfs(folder)
    except OSError:
        return False
    return space.f_bavail * space.f_frsize < ALMOST_NOTHING


def _last_sign(run: RunPaths) -> Optional[float]:
    """When a run that nobody saw ending was last heard of."""
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


def status(request: Request) -> Dict[str, Any]:
    """The verb ``status``: ``{runs: [status]}`` of ``run_ids``, or of every run on the box, newest first."""
    run_ids = request.args.get("run_ids")
    if run_ids is None:
        run_ids = all_runs(request.paths)
    box = Box()
    return {"runs": [status_of(request.paths.run(check_run_id(run_id)), box) for run_id in run_ids]}


def all_runs(paths: BoxPaths) -> List[str]:
    """The ids of every run on the box, newest first."""
    from remote_payload.agent.snapshot import runs_newest_first

    return [run.run_id for run in runs_newest_first(paths)]
