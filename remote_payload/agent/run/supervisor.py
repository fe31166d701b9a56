"""The supervisor of one run: it starts the payload, watches it, and records how it ended. Nothing that it does can block the payload, and
the payload goes on if the supervisor is killed.

It holds the run's lock for life, is the parent of every orphan below it, and waits for signals in one loop: CHLD (a child ended; while
the run waits for GPUs: look now), USR1 (``stop``), TERM (from anybody else: passed on to the payload).
"""

import functools
import os
import signal
import sys
import threading
import time
from typing import Callable, Dict, List, Optional, Tuple

from remote_payload.agent.box import daemon, hardware, locks, processes, signals
from remote_payload.agent.box.files import remove_quietly
from remote_payload.agent.box.processes import Process
from remote_payload.agent.run import (
    alive,
    ending,
    events,
    manifest,
    owner,
    payload_command,
    run_folder,
    secrets,
    slot,
    spawn,
)
from remote_payload.agent.run.causes import Explanation
from remote_payload.agent.run.finished import ended, own_logs, surplus
from remote_payload.agent.run.order import NO_LOCK, LaunchFile, Order, Start, decode_order, read_launch
from remote_payload.agent.run.owner import Payload
from remote_payload.agent.run.progress.process import LogReader
from remote_payload.agent.run.queue import allotment
from remote_payload.agent.run.queue.allotment import Allotment
from remote_payload.agent.run.queue.choice import Needs
from remote_payload.agent.run.queue.waiting import Waiting
from remote_payload.agent.run.quota import Limit, LogQuota, first_limit
from remote_payload.agent.run.several_boxes.together import Together
from remote_payload.agent.wire.paths import BoxPaths, RunPaths
from remote_payload.agent.wire.protocol import ExitRecord

SIGNALS = (signal.SIGCHLD, signal.SIGUSR1, signal.SIGTERM)
TICK = 1.0  # seconds between looks at the clock and the log's size
SAMPLE_EVERY = 5.0
LEFTOVERS_GRACE = 10.0  # for what the payload leaves running when it ends by itself


def supervise() -> int:
    """Reads the order from stdin, detaches, and stays until the run is over. Gives the exit status."""
    order = decode_order(sys.stdin.buffer.read())
    run = RunPaths(order.folder)
    launch = read_launch(run)
    if launch is None:
        raise OSError("%s cannot be read" % run.launch)
    answer = daemon.detach(run.supervisor_log, SIGNALS)
    supervisor = Supervisor(run, launch, order)
    try:
        supervisor.start()
    except BaseException as error:
        _answer(answer, Start(str(error), getattr(error, "errno", None)))
        raise
    _answer(answer, Start())
    supervisor.wait_for_gpus()
    supervisor.watch()
    supervisor.finish()
    return 0


def _answer(descriptor: int, start: Start) -> None:
    """To the agent that waits for it; it may have died meanwhile, which is no reason to leave the run."""
    try:
        os.write(descriptor, start.encode())
    except OSError:
        pass
    os.close(descriptor)


class Supervisor:
    """The supervisor of one run."""

    PAYLOAD_DIES_WITH_US = False  # on a box it trains on, and can be stopped all the same

    def __init__(self, run: RunPaths, launch: LaunchFile, order: Order) -> None:
        self.run = run
        self.launch = launch
        self._paths = BoxPaths(order.root)
        self._lock = order.lock
        if self._lock != NO_LOCK:
            os.set_inheritable(self._lock, False)  # the payload must not keep it
        self._gpus = order.gpus
        self._given = order.given
        self._secrets = order.secrets
        self._owner = owner.this_process()  # owner.json
        self._allotment: Optional[Allotment] = None  # gpus.json
        self._slot = -1  # the descriptor of exit.slot
        self._payload: Optional[Payload] = None
        self._exit: Optional[ExitRecord] = None
        self._received: Optional[int] = None  # the last signal
        self._ended_by_us: Optional[str] = None  # the kind of the exit, once we have asked the payload to end
        self._kill_at: Optional[float] = None
        self._limit: Optional[Limit] = None
        self._log_size = 0  # that was noted with its time
        self._over = threading.Event()
        self._together = Together(launch.boxes)
        self._reader = LogReader(run)

    # The start

    def start(self) -> None:
        """Up to the payload's start, or to its place in the queue. Raises what keeps it from starting; nothing runs then."""
        self._slot = slot.allocate(self.run)
        self._together.listen()
        if self.launch.gpus and not self._given:
            plural = "" if self.launch.gpus == 1 else "s"
            self._record_waiting("waiting for %d GPU%s" % (self.launch.gpus, plural))
        else:
            self._start_payload()

    def _record_waiting(self, why: str) -> None:
        if self._owner.waiting != why:
            self._owner = self._owner._replace(waiting=why)
            owner.write(self.run, self._owner)

    def wait_for_gpus(self) -> None:
        """For a queued run: waits for its turn and its GPUs, then starts the payload; or records the end where a signal ends the wait."""
        if self._owner.waiting is None:
            return
        needs = Needs(self.launch.gpus, self.launch.vram, self.launch.disk)
        waiting = Waiting(self._paths, self.run, list(self._gpus), needs)
        given, why = waiting.look()
        while not given:
            _unless_full(functools.partial(self._record_waiting, why))
            owner.show_sign_of_life(self.run)
            received = signals.wait(SIGNALS, TICK / 2)
            if received in (signal.SIGUSR1, signal.SIGTERM):
                # USR1 is ``stop``. TERM is any other process's, and would have ended the payload, which has not started yet.
                kind, number = ("cancelled", 0) if received == signal.SIGUSR1 else ("signal", received)
                self._exit = ExitRecord(kind, number, time.time())
                return
            given, why = waiting.look()  # at once after a CHLD, which ``allotment.wake_next`` sends
        self._gpus, self._given = tuple(given), tuple(gpu.number for gpu in given)
        allotment.wake_next(self._paths)  # another GPU may be free for the next run
        self._start_payload()

    def _start_payload(self) -> None:
        """Forks the payload, writes down which process it is, and only then lets it execute."""
        environment = self._environment()
        run, dies_with_us = self.run, self.PAYLOAD_DIES_WITH_US
        child = spawn.fork_paused(run.run_id, self.launch.argv, run.code, environment, run.log, dies_with_us)
        self._secrets.clear()
        process = processes.read(child.pid)
        self._payload = Payload(child.pid, process.start if process else 0, processes.autogroup(child.pid))
        self._owner = self._owner._replace(
            waiting=None, payload=self._payload, gpus=self._given, started_at=time.time()
        )
        owner.write(self.run, self._owner)
        self._allotment = allotment.read(self.run)
        slot.mark_started(self._slot)
        self._together.start()
        if child.execute() is not None:  # it could not, as its log says: the launch is answered with this end
            self._exit = self._read_status(os.waitpid(child.pid, 0)[1])
            slot.write(self.run, self._exit, self._slot)

    def _environment(self) -> Dict[str, str]:
        return payload_command.environment(self.launch, self._gpus, self._given, self._secrets)

    # The watch

    def watch(self) -> None:
        """Until the payload has ended: its exit status, its limits, ``stop``, the log's size."""
        if self._payload is None or self._exit is not None:
            return
        quota = LogQuota(self.run.log, self.launch.log_limit)
        self._limit = first_limit(self.launch)
        threading.Thread(target=self._sample_hardware, daemon=True).start()
        while True:
            received = self._received = signals.wait(SIGNALS, TICK)
            self._collect_children()
            if self._exit is not None:
                return
            self._restore_files()
            self._obey(received)
            self._enforce_limit()
            self._follow_other_boxes()
            self._enforce_grace()
            self._enforce_quota(quota)
            self._note_log_size()
            self._reader.start()

    def _collect_children(self) -> None:
        """Collects every child that ended; the exit status of the payload is recorded at once."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._reader.collected(pid, status)
            if self._payload is not None and pid == self._payload.pid:
                self._exit = self._read_status(status)
                self._record_end(self._exit)

    def _record_end(self, record: ExitRecord) -> None:
        slot.write(self.run, record, self._slot)

    def _read_status(self, status: int) -> ExitRecord:
        killed = os.WIFSIGNALED(status)
        number = os.WTERMSIG(status) if killed else os.WEXITSTATUS(status)
        if self._ended_by_us:
            return ExitRecord(self._ended_by_us, 128 + number if killed else number, time.time())
        return ExitRecord("signal" if killed else "exit", number, time.time())

    def _restore_files(self) -> None:
        """Writes ``owner.json`` and ``gpus.json`` again where they were damaged: if the supervisor is killed, others need them."""
        if not os.path.isdir(self.run.folder):
            return
        if owner.read(self.run) != self._owner:
            _unless_full(lambda: owner.write(self.run, self._owner))
        if self._allotment is not None and allotment.read(self.run) != self._allotment:
            _unless_full(functools.partial(allotment.write, self._allotment))

    def _obey(self, received: Optional[int]) -> None:
        if received == signal.SIGUSR1:
            self._end_payload("cancelled", ending.requested_grace(self.run))
        elif received == signal.SIGTERM:
            self._signal_payload(signal.SIGTERM)

    def _enforce_limit(self) -> None:
        if self._limit is None or self._ended_by_us is not None:
            return
        warning = self._limit.warning()
        if warning:
            events.append(self.run.events, "flag", name=self._limit.name, message=warning)
        if self._limit.reached():
            self._end_payload(self._limit.kind, ending.needed_grace(self.run))

    def _end_payload(self, kind: str, grace: float) -> None:
        """TERM now, KILL once the grace is over."""
        kill_at = time.monotonic() + grace
        self._kill_at = kill_at if self._kill_at is None else min(self._kill_at, kill_at)
        if self._ended_by_us is None:
            self._ended_by_us = kind
            self._together.tell_ending(kind)
        self._signal_payload(signal.SIGTERM)

    def _follow_other_boxes(self) -> None:
        ending_there = self._together.ending() if self._ended_by_us is None else None
        if ending_there is not None:
            grace = ending.needed_grace(self.run) if ending_there.grace is None else ending_there.grace
            self._end_payload(ending_there.kind, grace)

    def _enforce_grace(self) -> None:
        if self._kill_at is not None and time.monotonic() > self._kill_at:
            ending.kill(self._members, ending.KILL_LIMIT)

    def _enforce_quota(self, quota: LogQuota) -> None:
        complaint = quota.enforce()
        if complaint:
            events.append(self.run.events, "flag", name="log_limit", message=complaint)

    def _note_log_size(self) -> None:
        """When the log had grown so far: its own bytes are the payload's, so the times of its lines stand beside it."""
        try:
            size = os.stat(self.run.log).st_size
        except OSError:
            return
        if size != self._log_size:
            self._log_size = size
            events.append(self.run.events, "log", size=size)

    def _signal_payload(self, number: int) -> None:
        """To the payload's main process only: it knows how to end its own workers, and saves before it does."""
        main = processes.is_alive(self._payload.pid, self._payload.start) if self._payload else None
        if main is not None:
            processes.send(main, number)
            processes.send(main, signal.SIGCONT)

    def _members(self) -> List[Process]:
        """All processes of the run, those that have ended collected."""
        found = alive.Box().members(self.run.run_id, self._owner)
        self._collect_children()
        return found

    def _sample_hardware(self) -> None:
        sampler = hardware.Sampler()
        while not self._over.wait(SAMPLE_EVERY):
            events.append(self.run.events, "hardware", **sampler.sample(self.run.folder))

    # The end

    def finish(self) -> None:
        """The exit record first, then leftovers, GPUs (looked at before they are given on), secrets, the last event, the manifest; the lock
        last.
        """
        record = self._exit
        assert record is not None
        if self._payload is None:
            slot.write(self.run, record, self._slot)
        self._over.set()
        self._together.tell_ended(record, lambda: ended.explain(self.run, record, self._owner))
        survivors = self._end_leftovers()
        self._note_log_size()
        why = ended.explain(self.run, record, self._owner)
        self._note_gpus(record, why)
        self._release_gpus(survivors)
        secrets.remove(self.run)
        self._reader.finish(self._collect_children)  # the next run need not wait for it
        ended.append(self.run, record, self._together.better(why), survivors)
        self._write_manifest()
        ending.forget_grace(self.run)
        self._together.close()
        if self._lock != NO_LOCK:
            locks.leave_run(self.run, self._lock)

    def _end_leftovers(self) -> Tuple[Process, ...]:
        """Ends what the payload left running; those that survive."""
        if self._payload is None:
            return ()
        grace = LEFTOVERS_GRACE if self._kill_at is None else max(0.0, self._kill_at - time.monotonic())
        return tuple(ending.terminate(self._members, grace, ending.KILL_LIMIT))

    def _note_gpus(self, record: ExitRecord, why: Optional[Explanation]) -> None:
        lent = [gpu for gpu in self._gpus if gpu.number in self._given]
        ended.note_gpus(self._paths, self.run, lent, record, self._owner, why)

    def _release_gpus(self, survivors: Tuple[Process, ...]) -> None:
        if not survivors:  # else they keep the GPUs
            remove_quietly(self.run.gpus)
        if self.launch.gpus:
            allotment.wake_next(self._paths)

    def _write_manifest(self) -> None:
        try:
            run_folder.gather_outputs(self.run, self.launch.outputs)
            own_logs.add(self.run)
            surplus.remove_surplus(self._paths, self.run)
            manifest.write(self.run)
        except OSError as error:
            print("manifest: %s" % error, file=sys.stderr)


def _unless_full(write: Callable[[], None]) -> None:
    """Writes a small file; where the disk is full, the next look tries again."""
    try:
        write()
    except OSError:
        pass
