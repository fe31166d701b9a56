"""Which processes belong to a run, and whether the run is alive: one answer for status, stop, stale, clean, secrets, GPUs and the queue.

A run is alive while a process holds its lock, while its supervisor or its payload's main process exists (pid and start time
together), or while there is a process that has its cookie or its badge, writes to its log, belongs to the payload's session,
descends from one of these or shares a session with one. Else it is dead. No single sign is enough: locks
disappear with their folder, an environment can be cleared or overwritten, a log redirected, a pid reused, and
some kernels keep no badge.

A run that is a Slurm job has its processes on another machine: its heartbeat and Slurm's list decide (``run/slurm/table.py``).
"""

import os
import re
import time
from typing import TYPE_CHECKING, Dict, Iterable, List, NamedTuple, Optional, Protocol, Set, Tuple

from remote_payload.agent.box import badge, locks, processes, provider
from remote_payload.agent.box.processes import Process
from remote_payload.agent.run import owner, slot
from remote_payload.agent.run.owner import Owner
from remote_payload.agent.run.slurm import files as slurm_files
from remote_payload.agent.wire.paths import RUN_ID, RunPaths

if TYPE_CHECKING:
    from remote_payload.agent.run.slurm.table import Verdict

LOG = re.compile(r"/runs/(%s)/log(?: \(deleted\))?$" % RUN_ID.pattern)
OUTPUT = (1, 2)  # descriptors
# Seconds after which a run that another box has shows no sign of life. It writes every five; the clocks of two boxes differ, and a network
# volume may show a change late.
ELSEWHERE = 120.0
LOG_READER = "progress"  # the verb of the agent's process beside a supervisor, ``progress/process.py``
LOGIN_SERVERS = re.compile(r"sshd(-[a-z]+)?|dropbear")


class Start(Protocol):
    """When the box and its container were started, as a record of that time has it."""

    @property
    def boot_id(self) -> Optional[str]: ...
    @property
    def first_start(self) -> Optional[int]: ...  # of PID 1


class Life(NamedTuple):
    """The processes of a run."""

    held: bool  # a process holds its lock, or another box has it
    supervisor: Optional[Process]
    members: Tuple[Process, ...]  # every other process of the run

    @property
    def supervised(self) -> bool:
        """Whether a supervisor will record how the run ended."""
        return self.held or self.supervisor is not None

    @property
    def anything(self) -> bool:
        """Whether the run is alive at all."""
        return self.supervised or bool(self.members)


class Box:
    """The processes of the box at one moment, for any number of runs: read once, and only when they are needed."""

    def __init__(self) -> None:
        self.boot_id = processes.boot_id()
        self.first_start = processes.first_start()
        self._everything: Optional[Dict[int, Process]] = None
        self._marked: Dict[str, Set[int]] = {}
        self._badged: Dict[int, Set[int]] = {}
        self._supervisors: Optional[Dict[str, Process]] = None
        self._verdicts: "Dict[str, Verdict]" = {}

    @property
    def everything(self) -> Dict[int, Process]:
        """All processes by pid."""
        if self._everything is None:
            self._everything = processes.scan()
            for pid, process in self._everything.items():
                run_id = run_of(pid)
                if run_id is not None:
                    self._marked.setdefault(run_id, set()).add(pid)
                number = badge.read(pid) if process.session else None  # kernel threads have no session
                if number is not None:
                    self._badged.setdefault(number, set()).add(pid)
        return self._everything

    def marked(self) -> Dict[str, Set[int]]:
        """Pids that have the cookie of a run or write to its log (``run_of``), by run id."""
        return self._marked if self.everything else {}

    def runs_by_pid(self, runs: Iterable[RunPaths]) -> Dict[int, str]:
        """The run that each process belongs to: one of ``runs``, by any sign, or another run whose cookie or log it has."""
        found = {pid: run_id for run_id, pids in self.marked().items() for pid in pids}
        for run in runs:
            for process in self.members(run.run_id, owner.read(run)):
                found.setdefault(process.pid, run.run_id)
        return found

    def life(self, run: RunPaths) -> Life:
        """The processes of a run now."""
        if slurm_files.is_slurm(run):
            return Life(self.is_slurm_alive(run), None, ())
        recorded = owner.read(run)
        supervisor = self.supervisor(run.run_id, recorded)
        held = locks.is_held(locks.run_lock(run)) or self.is_elsewhere(run, recorded)
        return Life(held, supervisor, tuple(self.members(run.run_id, recorded)))

    def slurm_verdict(self, run: RunPaths) -> "Verdict":
        """The state of a run that is a Slurm job without an exit record: its processes are on another machine."""
        from remote_payload.agent.run.slurm import look  # for clusters alone

        if run.run_id not in self._verdicts:
            self._verdicts[run.run_id] = look.verdict_of(run)
        return self._verdicts[run.run_id]

    def is_slurm_alive(self, run: RunPaths) -> bool:
        """Whether a run that is a Slurm job is not over, or its supervisor has not done everything yet."""
        if slot.read(run) is None:
            return self.slurm_verdict(run).alive
        heartbeat = slurm_files.heartbeat_age(run)
        return heartbeat is not None and heartbeat < slurm_files.FRESH

    def is_elsewhere(self, run: RunPaths, recorded: Optional[Owner]) -> bool:
        """Whether another box of the provider, which shares this volume, wrote to the run's files a moment ago.

        Its processes cannot be seen here, and not every network volume has locks that hold from one box to the other.
        """
        if recorded is None or recorded.box_id is None or recorded.box_id == provider.read_provider().box_id:
            return False
        return time.time() - max(map(_changed_at, (run.events, run.owner))) < ELSEWHERE

    def members(self, run_id: str, recorded: Optional[Owner]) -> List[Process]:
        """Every process of the run but its supervisor, this process and its ancestors; ``recorded`` is the run's owner."""
        everything = self.everything
        seeds = self._marked.get(run_id, set()) | self._carriers(run_id)
        spared = processes.self_and_ancestors()
        supervisor = self.supervisor(run_id, recorded)
        if supervisor is not None:
            spared.add(supervisor.pid)
            own = {pid for pid in _children(everything, supervisor) if _is_log_reader(pid)}
            seeds |= processes.descendants(everything, supervisor.pid) - own
        return processes.family(everything, seeds | self._session(recorded), spared)

    def supervisor(self, run_id: str, recorded: Optional[Owner]) -> Optional[Process]:
        """The run's supervisor if it is alive: by the record, or, where that is damaged, by its command line."""
        supervisor = self.recorded_supervisor(recorded)
        if supervisor is not None:
            return supervisor
        if self._supervisors is None:
            self._supervisors = {}
            for process in self.everything.values():
                *_, verb, subject = ["", "", *processes.command(process.pid).split()]
                if verb == "supervise" and processes.is_agent(process.pid):
                    self._supervisors[subject] = process
        return self._supervisors.get(run_id)

    def recorded_supervisor(self, recorded: Optional[Owner]) -> Optional[Process]:
        """The supervisor that the record names, if it is alive."""
        if recorded is None or self.restarted_since(recorded):
            return None
        return processes.is_alive(recorded.pid, recorded.start)

    def restarted_since(self, recorded: Start) -> bool:
        """Whether the kernel or PID 1 of the container was restarted since: all processes of that time have ended."""
        if recorded.boot_id is not None and recorded.boot_id != self.boot_id:
            return True
        before, now = recorded.first_start, self.first_start
        return before is not None and now is not None and now > before

    def _carriers(self, run_id: str) -> Set[int]:
        """The processes with the run's badge. Everybody who logs in inherits the badge of a login server that the run restarted: neither
        that server nor its descendants count.
        """
        found = self._badged.get(badge.of(run_id), set())
        servers = {pid for pid in found if LOGIN_SERVERS.fullmatch(self.everything[pid].name)}
        return found.difference(servers, *(processes.descendants(self.everything, server) for server in servers))

    def _session(self, recorded: Optional[Owner]) -> Set[int]:
        """The payload's main process and every process in the session that it made, even after it has ended itself.

        The number of an empty session may be reused; the kernel's autogroup of it never is.
        """
        payload = recorded.payload if recorded else None
        if recorded is None or payload is None or self.restarted_since(recorded):
            return set()
        main = self.everything.get(payload.pid)
        if main is not None:
            return {main.pid} if main.start == payload.start else set()
        found = {each.pid for each in self.everything.values() if each.session == payload.pid}
        return {pid for pid in found if payload.autogroup and processes.autogroup(pid) == payload.autogroup}


def _children(everything: Dict[int, Process], parent: Process) -> List[int]:
    return [process.pid for process in everything.values() if process.parent == parent.pid]


def _is_log_reader(pid: int) -> bool:
    return processes.command(pid).split()[-2:-1] == [LOG_READER] and processes.is_agent(pid)


def _changed_at(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def of(run: RunPaths, box: Optional[Box] = None) -> Life:
    """The processes of a run now."""
    return (box or Box()).life(run)


def is_supervised(run: RunPaths, box: Optional[Box] = None) -> bool:
    """Whether a supervisor will record how the run ended. All processes are read only where ``owner.json`` is damaged."""
    if slurm_files.is_slurm(run):
        return (box or Box()).is_slurm_alive(run)
    if locks.is_held(locks.run_lock(run)):
        return True
    recorded, box = owner.read(run), box or Box()
    if box.is_elsewhere(run, recorded):
        return True
    if recorded is None and os.path.isdir(run.folder):
        return box.supervisor(run.run_id, None) is not None
    return box.recorded_supervisor(recorded) is not None


def run_of(pid: int) -> Optional[str]:
    """The run whose cookie the process has, or whose log it writes its output to."""
    found = processes.cookie(pid)
    return found if found else _written_log(pid)


def find(run: RunPaths) -> List[Process]:
    """Every process of the run now, but its supervisor."""
    return Box().members(run.run_id, owner.read(run))


def _written_log(pid: int) -> Optional[str]:
    for descriptor in OUTPUT:
        try:
            found = LOG.search(os.readlink("/proc/%d/fd/%d" % (pid, descriptor)))
        except OSError:
            return None
        if found:
            return found.group(1)
    return None
