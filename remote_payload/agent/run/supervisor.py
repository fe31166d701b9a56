"""Guards one run from before its payload starts until after it has ended. Nothing it does can stall the payload, and nothing that
happens to it ends the payload.

It holds the run's lock for life, is the parent of every orphan below it (a child subreaper), and waits for signals in one loop:
CHLD (somebody ended; while it waits for GPUs: look now), USR1 (``stop`` asks), TERM (somebody else asks: passed on).
"""

import ctypes
import json
import os
import signal
import sys
import threading
import time
from typing import Any, Dict, List, Optional

from remote_payload.agent.box import cgroup, hardware, locks, processes, signals
from remote_payload.agent.box.files import read_json, remove_quietly, write_json
from remote_payload.agent.box.gpus import Gpu
from remote_payload.agent.run import (
    alive,
    allotment,
    causes,
    ending,
    events,
    manifest,
    owner,
    run_folder,
    secrets,
    slot,
    spawn,
    state,
)
from remote_payload.agent.run.quota import LogQuota
from remote_payload.agent.run.waiting import Waiting
from remote_payload.agent.wire.paths import BoxPaths, RunPaths, volatile_folder
from remote_payload.agent.wire.protocol import ExitRecord

SIGNALS = (signal.SIGCHLD, signal.SIGUSR1, signal.SIGTERM)
IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE)
TICK = 1.0  # seconds between looks at the clock and the log's size
SAMPLE_EVERY = 5.0
LEFTOVERS_GRACE = 10.0  # for what the payload leaves running when it ends by itself
PR_SET_CHILD_SUBREAPER = 36


def supervise() -> int:
    """Reads what to supervise from stdin, detaches, and stays until the run is over. Gives the exit status."""
    order = json.load(sys.stdin)
    run = RunPaths(order["folder"])
    confirm = detach(run)
    supervisor = Supervisor(run, order)
    try:
        supervisor.start()
    except BaseException as error:
        _tell(confirm, {"error": str(error), "errno": getattr(error, "errno", None)})
        raise
    _tell(confirm, {"started": True})
    supervisor.wait_for_gpus()
    supervisor.watch()
    supervisor.finish()
    return 0


def _tell(confirm: int, said: Dict[str, Any]) -> None:
    """The start, or why there is none, to the agent that waits for it; it may have died meanwhile, which is no reason to leave the run."""
    try:
        os.write(confirm, json.dumps(said).encode("ascii") + b"\n")
    except OSError:
        pass
    os.close(confirm)


def detach(run: RunPaths) -> int:
    """Leaves the agent's session for good (double fork, ``setsid``, no descriptor shared); where to confirm the start."""
    confirm = os.dup(1)
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    log = os.open(run.supervisor_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("-500")  # needs root; the payload sets its own back
    except OSError:
        pass
    return confirm


class Supervisor:
    """One run's guard. ``order``: the lock's descriptor, the GPUs there are and those given to it, the secrets for the payload."""

    def __init__(self, run: RunPaths, order: Dict[str, Any]) -> None:
        self.run = run
        self.launch = read_json(run.launch) or {}
        self._lock: int = order["lock"]
        self._paths = BoxPaths(order["root"])
        self._given: List[int] = order["given"]
        self._gpus = [Gpu(**gpu) for gpu in order["gpus"]]
        self._secrets: Dict[str, str] = order["variables"]
        os.set_inheritable(self._lock, False)  # the payload must not keep it
        self._owner: Dict[str, Any] = {}
        self._allotment: Optional[Dict[str, Any]] = None  # gpus.json
        self._slot = -1
        self._payload: Optional[int] = None
        self._record: Optional[ExitRecord] = None
        self._ended_by_us: Optional[str] = None  # the slot's kind once we told the payload to end
        self._kill_at: Optional[float] = None
        self._over = threading.Event()

    # The start

    def start(self) -> None:
        """Up to the payload's start, or to its place in the queue. Raises what keeps it from starting; nothing runs then."""
        self._slot = slot.allocate(self.run)
        me = processes.read(os.getpid())
        self._owner = {
            "pid": os.getpid(),
            "start": me.start if me else None,
            "boot_id": processes.boot_id(),
            "first_start": processes.first_start(),
            "oom_kills": cgroup.oom_kills(),
        }
        if self.launch["gpus"] and not self._given:
            self._say_waiting("waiting for %d GPU%s" % (self.launch["gpus"], "" if self.launch["gpus"] == 1 else "s"))
        else:
            self._start_payload()

    def _say_waiting(self, waiting: str) -> None:
        if self._owner.get("waiting") != waiting:
            self._owner["waiting"] = waiting
            write_json(self.run.owner, self._owner)

    def wait_for_gpus(self) -> None:
        """For a queued run: its turn, then its GPUs, then the payload; or the end of it, when somebody wants that first."""
        if not self._owner.get("waiting"):
            return
        waiting = Waiting(self._paths, self.run, self._gpus, self.launch["gpus"])
        given, why = waiting.look()
        while not given:
            try:
                self._say_waiting(why)
            except OSError:  # a full disk: what is told is of an earlier look
                pass
            received = signals.wait(SIGNALS, TICK / 2)
            if received in (signal.SIGUSR1, signal.SIGTERM):
                # USR1 is ``stop``. TERM is somebody else's, and would have ended a payload that is not there yet.
                kind, number = ("cancelled", 0) if received == signal.SIGUSR1 else ("signal", received)
                self._record = ExitRecord(kind, number, time.time())
                return
            given, why = waiting.look()  # at once after a CHLD: that is ``allotment.wake_next``
        self._given = [gpu.number for gpu in given]
        allotment.wake_next(self._paths)  # there may be another GPU for it
        self._start_payload()

    def _start_payload(self) -> None:
        environment = dict(os.environ)
        environment.update(self.launch["environment"])
        if secrets.TOKEN_PATH in self._secrets:
            environment.pop(secrets.TOKEN, None)  # the box's own would win over the file
        environment.update(self._secrets, CUDA_VISIBLE_DEVICES=",".join(map(str, self._given)))
        names = [allotment.name(gpu) for gpu in self._gpus if gpu.number in self._given]
        environment[allotment.VARIABLE] = " ".join(names)
        child = spawn.hold(self.run.run_id, self.launch["argv"], self.run.code, environment, self.run.log)
        self._secrets.clear()
        self._payload = child.pid
        started = processes.read(child.pid)
        self._owner.pop("waiting", None)
        self._owner.update(
            payload={
                "pid": child.pid,
                "start": started.start if started else None,
                "autogroup": processes.autogroup(child.pid),
            },
            gpus=self._given,
            started_at=time.time(),
        )
        write_json(self.run.owner, self._owner)
        self._allotment = read_json(self.run.gpus)
        slot.mark_started(self._slot)
        if child.go() is not None:  # it could not be executed, as its log says: the launch is answered with this end
            self._record = self._read_status(os.waitpid(child.pid, 0)[1])
            slot.write(self.run, self._record, self._slot)

    # The watch

    def watch(self) -> None:
        """Until the payload has ended: its exit status, the time limit, ``stop``, the log's size."""
        if self._payload is None or self._record is not None:
            return
        quota = LogQuota(self.run.log, self.launch["log_limit"])
        threading.Thread(target=self._sample, daemon=True).start()
        limit = self.launch.get("time_limit")
        out_of_time = time.monotonic() + limit if limit else None
        while True:
            received = signals.wait(SIGNALS, TICK)
            self._collect()
            if self._record is not None:
                return
            self._heal()
            self._obey(received)
            if out_of_time is not None and time.monotonic() > out_of_time and self._ended_by_us is None:
                self._end("timeout", ending.GRACE)
            if self._kill_at is not None and time.monotonic() > self._kill_at:
                ending.kill(self._family, ending.KILL_LIMIT)
            complaint = quota.enforce()
            if complaint:
                events.append(self.run.events, "flag", name="log_limit", message=complaint)

    def _heal(self) -> None:
        """Writes again what others ask about this run, should it have been damaged: once the supervisor is killed nobody knows it."""
        for path, value in ((self.run.owner, self._owner), (self.run.gpus, self._allotment)):
            if value is None or read_json(path) == value or not os.path.isdir(self.run.folder):
                continue
            try:
                if os.path.isdir(path):
                    os.rmdir(path)
                write_json(path, value)
            except OSError:  # a full disk: at the next look
                continue

    def _collect(self) -> None:
        """Collects whoever ended; the payload's status at once becomes the record."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._payload:
                self._record = self._read_status(status)
                slot.write(self.run, self._record, self._slot)

    def _read_status(self, status: int) -> ExitRecord:
        killed = os.WIFSIGNALED(status)
        number = os.WTERMSIG(status) if killed else os.WEXITSTATUS(status)
        if self._ended_by_us:
            return ExitRecord(self._ended_by_us, 128 + number if killed else number, time.time())
        return ExitRecord("signal" if killed else "exit", number, time.time())

    def _obey(self, received: Optional[int]) -> None:
        if received == signal.SIGUSR1:
            self._end("cancelled", self._stop_grace())
        elif received == signal.SIGTERM:
            self._signal_payload(signal.SIGTERM)

    def _end(self, kind: str, grace: float) -> None:
        kill_at = time.monotonic() + grace
        self._kill_at = kill_at if self._kill_at is None else min(self._kill_at, kill_at)
        self._ended_by_us = self._ended_by_us or kind
        self._signal_payload(signal.SIGTERM)

    def _signal_payload(self, number: int) -> None:
        """To the payload's main process only: it knows how to end its own workers, and saves before it does."""
        main = processes.is_alive(self._payload, self._owner["payload"]["start"])
        if main is not None:
            processes.send(main, number)
            processes.send(main, signal.SIGCONT)

    def _stop_grace(self) -> float:
        try:
            with open(os.path.join(volatile_folder(self.run.run_id), ending.GRACE_FILE), encoding="ascii") as file:
                return max(0.0, min(float(file.read(32)), 3600.0))
        except (OSError, ValueError):
            return ending.GRACE

    def _family(self) -> List[processes.Process]:
        found = alive.Box().members(self.run.run_id, owner.parse(self._owner))
        self._collect()
        return found

    def _sample(self) -> None:
        sampler = hardware.Sampler()
        while not self._over.wait(SAMPLE_EVERY):
            events.append(self.run.events, "hardware", **sampler.sample(self.run.folder))

    # The end

    def finish(self) -> None:
        """The record first, then leftovers, GPUs, secrets, the manifest; the lock last."""
        record = self._record
        assert record is not None
        if self._payload is None:
            slot.write(self.run, record, self._slot)
        self._over.set()
        grace = LEFTOVERS_GRACE if self._kill_at is None else max(0.0, self._kill_at - time.monotonic())
        survivors = ending.terminate(self._family, grace, ending.KILL_LIMIT) if self._payload is not None else []
        if not survivors:  # else they keep the GPUs
            remove_quietly(self.run.gpus)
        if self.launch["gpus"]:
            allotment.wake_next(self._paths)
        secrets.remove(self.run.run_id)
        self._say_ended(record, survivors)
        try:
            run_folder.gather_outputs(self.run, self.launch.get("outputs") or [])
            manifest.write(self.run)
        except OSError as error:
            print("manifest: %s" % error, file=sys.stderr)
        remove_quietly(os.path.join(volatile_folder(self.run.run_id), ending.GRACE_FILE))
        locks.leave_run(self.run, self._lock)

    def _say_ended(self, record: ExitRecord, survivors: List[processes.Process]) -> None:
        told: Dict[str, Any] = {"exit": {"kind": record.kind, "number": record.number}}
        if record.kind in ("exit", "signal") and (record.kind, record.number) != ("exit", 0):
            oom_kills, full = state.oom_kills_since(self._owner["oom_kills"]), state.disk_is_full(self.run.folder)
            told.update(causes.explain(record, causes.tail(self.run.log), oom_kills, full)._asdict())
        if survivors:
            told["survivors"] = ending.describe(survivors)
        events.append(self.run.events, "ended", **told)
