"""Whether anything of a run lives: one answer for status, stop, clean, secrets, GPUs and the queue.

A run lives while somebody holds its lock, while its supervisor or its payload's main process is there (pid and start time
together), or while there is a process that carries its cookie or its badge, writes to its log, belongs to the payload's session,
descends from one of these or shares a session with one. It is dead when none of this is so. No single sign is enough: locks
disappear with their folder, an environment can be cleared or overwritten, a log redirected, a pid given to somebody else, and
some kernels keep no badge.
"""

import os
import re
from typing import Dict, Iterable, List, NamedTuple, Optional, Set, Tuple

from remote_payload.agent.box import badge, locks, processes
from remote_payload.agent.box.processes import Process
from remote_payload.agent.run import owner
from remote_payload.agent.run.owner import Owner
from remote_payload.agent.wire.paths import RUN_ID, RunPaths

LOG = re.compile(r"/runs/(%s)/log(?: \(deleted\))?$" % RUN_ID.pattern)
OUTPUT = (1, 2)  # descriptors
LOGIN_SERVERS = re.compile(r"sshd(-[a-z]+)?|dropbear")


class Life(NamedTuple):
    """What lives of a run."""

    held: bool  # somebody holds its lock
    supervisor: Optional[Process]
    members: Tuple[Process, ...]  # every other process of the run

    @property
    def supervised(self) -> bool:
        """Whether there is somebody who will say how the run ended."""
        return self.held or self.supervisor is not None

    @property
    def anything(self) -> bool:
        """Whether the run is alive at all."""
        return self.supervised or bool(self.members)


class Box:
    """One look at the box, shared by many runs: its processes are read once, and only when somebody asks for them."""

    def __init__(self) -> None:
        self.boot_id = processes.boot_id()
        self.first_start = processes.first_start()
        self._everything: Optional[Dict[int, Process]] = None
        self._marked: Dict[str, Set[int]] = {}
        self._badged: Dict[int, Set[int]] = {}
        self._supervisors: Optional[Dict[str, Process]] = None

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
        """Pids that show by themselves to which run they belong (``run_of``), by run id."""
        return self._marked if self.everything else {}

    def runs_by_pid(self, runs: Iterable[RunPaths]) -> Dict[int, str]:
        """The run that each process belongs to: one of ``runs`` by any sign, or, where it is none of these, the one that it names."""
        found = {pid: run_id for run_id, pids in self.marked().items() for pid in pids}
        for run in runs:
            for process in self.members(run.run_id, owner.read(run)):
                found.setdefault(process.pid, run.run_id)
        return found

    def life(self, run: RunPaths) -> Life:
        """What lives of a run now."""
        known = owner.read(run)
        supervisor = self.supervisor(run.run_id, known)
        return Life(locks.is_held(locks.run_lock(run)), supervisor, tuple(self.members(run.run_id, known)))

    def members(self, run_id: str, known: Optional[Owner]) -> List[Process]:
        """Every process of the run but its supervisor, ourselves and our ancestors."""
        everything = self.everything
        seeds = self._marked.get(run_id, set()) | self._carriers(run_id)
        spared = processes.self_and_ancestors()
        supervisor = self.supervisor(run_id, known)
        if supervisor is not None:
            spared.add(supervisor.pid)
            seeds |= processes.descendants(everything, supervisor.pid)
        return processes.family(everything, seeds | self._session(known), spared)

    def supervisor(self, run_id: str, known: Optional[Owner]) -> Optional[Process]:
        """The run's supervisor if it lives: as it was recorded, or, where the record is no good, by its command line."""
        recorded = self.recorded(known)
        if recorded is not None:
            return recorded
        if self._supervisors is None:
            self._supervisors = {}
            for process in self.everything.values():
                *_, verb, subject = ["", "", *processes.command(process.pid).split()]
                if verb == "supervise" and processes.is_agent(process.pid):
                    self._supervisors[subject] = process
        return self._supervisors.get(run_id)

    def recorded(self, known: Optional[Owner]) -> Optional[Process]:
        """The supervisor that was written down, if it lives."""
        if known is None or self.restarted_since(known):
            return None
        return processes.is_alive(known.pid, known.start)

    def restarted_since(self, known: Owner) -> bool:
        """Whether all processes of that time are gone, with the kernel or with PID 1 of the container: their pids mean nothing now."""
        if known.boot_id is not None and known.boot_id != self.boot_id:
            return True
        return known.first_start is not None and self.first_start is not None and self.first_start > known.first_start

    def _carriers(self, run_id: str) -> Set[int]:
        """Who carries the run's badge. A login server that the run restarted hands its badge to everybody who logs in: neither
        itself nor what is below it is known by a badge.
        """
        found = self._badged.get(badge.of(run_id), set())
        servers = {pid for pid in found if LOGIN_SERVERS.fullmatch(self.everything[pid].name)}
        return found.difference(servers, *(processes.descendants(self.everything, server) for server in servers))

    def _session(self, known: Optional[Owner]) -> Set[int]:
        """The payload's main process and whoever is in the session that it made, though it has ended itself.

        Once the session is empty its number may be given away; the kernel's autogroup of it is not.
        """
        payload = known.payload if known else None
        if known is None or payload is None or self.restarted_since(known):
            return set()
        main = self.everything.get(payload.pid)
        if main is not None:
            return {main.pid} if main.start == payload.start else set()
        found = {each.pid for each in self.everything.values() if each.session == payload.pid}
        return {pid for pid in found if payload.autogroup and processes.autogroup(pid) == payload.autogroup}


def of(run: RunPaths, box: Optional[Box] = None) -> Life:
    """What lives of a run now."""
    return (box or Box()).life(run)


def is_supervised(run: RunPaths, box: Optional[Box] = None) -> bool:
    """Whether somebody will say how the run ended: hardly ever must all processes be read for that."""
    if locks.is_held(locks.run_lock(run)):
        return True
    known, box = owner.read(run), box or Box()
    if known is None and os.path.isdir(run.folder):
        return box.supervisor(run.run_id, None) is not None
    return box.recorded(known) is not None


def run_of(pid: int) -> Optional[str]:
    """The run whose cookie the process carries, or whose log its output goes to."""
    found = processes.cookie(pid)
    return found if found else _written_log(pid)


def find(run: RunPaths) -> List[Process]:
    """Every process of the run that lives now, without its supervisor."""
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
