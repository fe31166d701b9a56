"""Verb ``stop``: the run's supervisor ends the payload and records it; then the agent checks that no process of the run is left.

A supervisor that does not react is killed, and the agent ends its processes, as it ends those of an orphaned run. An exit that was
recorded before is kept.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, List, Optional

from remote_payload.agent.box import locks, processes
from remote_payload.agent.box.processes import Process
from remote_payload.agent.run import alive, ending, owner, secrets, slot, state
from remote_payload.agent.run.alive import Box
from remote_payload.agent.run.slurm import files as slurm_files
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.fields import Fields
from remote_payload.agent.wire.paths import RunPaths
from remote_payload.agent.wire.protocol import ExitRecord
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import DeviceHolder, Status, Stopped

PATIENCE = 7.0  # seconds beyond the grace that the supervisor gets before it is killed
ANSWER_WITHIN = 10.0  # seconds beyond the grace after which survivors are reported: within a minute, with the usual 45
LOOK_EVERY = 0.1
REPORT_EVERY = 5.0  # less than the laptop's patience, since the grace may be long


def stop(request: Request) -> Stopped:
    """Ends a run: ``{status, survivors: [{pid, command, state}], device_holders: [{pid, command, state, gpus}]}``.

    No survivors prove success; ``device_holders`` are processes that do not belong to the run. ``grace`` seconds lie between
    TERM and KILL; without it as many as the run says that it needs. Progress every few seconds: ``{line, alive}``. Goes on when the
    connection ends. Raises AgentError RunLost for a run that does not exist.
    """
    run = request.run()
    grace = _grace(request.fields(), run)
    before = state.status_of(run)
    if before.get("cause") == "folder_deleted":
        raise AgentError("RunLost", "the box knows no run %s" % run.run_id, "gpurun list shows the runs it knows.")
    if slurm_files.is_slurm(run):
        return _stop_job(request, run, before, grace)
    if Box().is_elsewhere(run, owner.read(run)) and before["phase"] != "finished":
        raise AgentError(
            "HostError",
            "%s runs on another box, which shares this volume" % run.run_id,
            "Stop it there: gpurun list --host HOST, with the address of that box, shows it.",
        )
    deadline = time.monotonic() + grace + ANSWER_WITHIN
    answered = before["phase"] == "finished" or before["orphaned"] or _ask_supervisor(request, run, grace)
    survivors = _end_members(request, run, grace if before["orphaned"] else 0.0, answered, deadline)
    if not survivors and (before["phase"] != "finished" or before["outcome"] == "interrupted"):
        _record(run)  # of an interrupted run too: ``recover`` never starts it again then
    if not survivors:
        secrets.remove(run)
    status = state.status_of(run)
    return {
        "status": status,
        "survivors": ending.describe(survivors),
        "device_holders": _device_holders(before["gpus"] or status["gpus"]),
    }


def _stop_job(request: Request, run: RunPaths, before: Status, grace: float) -> Stopped:
    from remote_payload.agent.run.slurm import stopping  # for clusters alone

    if before["phase"] != "finished":
        stopping.stop(run, grace, lambda line: request.progress({"line": line, "alive": 1}))
    secrets.remove(run)
    return {"status": state.status_of(run), "survivors": [], "device_holders": []}


def _grace(asked: Fields, run: RunPaths) -> float:
    seconds = asked.optional_number("grace")
    if seconds is None:
        return ending.needed_grace(run)
    if not 0 <= seconds <= ending.LONGEST_GRACE:
        raise AgentError("GpurunError", "a grace of %g seconds" % seconds)
    return seconds


def _ask_supervisor(request: Request, run: RunPaths, grace: float) -> bool:
    """Asks the supervisor to end the payload and waits until it has; False when it does not in time."""
    ending.request_grace(run, grace)
    deadline = time.monotonic() + grace + PATIENCE
    reporter = _Reporter(request, time.monotonic() + grace)
    asked: Optional[Process] = None
    while time.monotonic() < deadline:
        supervisor = _supervisor(run)
        if supervisor is not None and asked is None:
            processes.send(supervisor, signal.SIGUSR1)
            processes.send(supervisor, signal.SIGCONT)
            asked = supervisor
        left = len(alive.find(run))
        if not alive.is_supervised(run) or (not left and slot.read(run) is not None):
            return True
        reporter.tell(left)
        time.sleep(LOOK_EVERY)
    return False


def _supervisor(run: RunPaths) -> Optional[Process]:
    return Box().supervisor(run.run_id, owner.read(run))


def _end_members(request: Request, run: RunPaths, grace: float, answered: bool, deadline: float) -> List[Process]:
    """Ends the processes of an orphaned run, or those that the supervisor did not end, and a supervisor that did not react."""
    reporter = _Reporter(request, time.monotonic() + grace)

    def find() -> List[Process]:
        left = alive.find(run)
        if left:
            reporter.tell(len(left))
        return left

    supervisor = _supervisor(run)
    if not answered and supervisor is not None:
        ending.signal_all([supervisor], signal.SIGKILL)
    return ending.terminate(find, grace, max(2.0, deadline - time.monotonic() - grace))


def _record(run: RunPaths) -> None:
    """Records ``cancelled``, unless a supervisor holds the lock or an exit was recorded before."""
    lock = locks.take_run(run)
    if lock is None:
        return
    if state.exit_of(run) is None and os.path.isdir(run.folder):
        slot.write(run, ExitRecord("cancelled", 128 + signal.SIGKILL, time.time()))
    locks.leave_run(run, lock)


class _Reporter:
    """Tells how many processes are left, and how long they still have to save and end: at each change, and every few seconds."""

    def __init__(self, request: Request, kill_at: float) -> None:
        self._request, self._kill_at = request, kill_at
        self._told, self._told_at = -1, 0.0

    def tell(self, left: int) -> None:
        now = time.monotonic()
        if left == self._told and now - self._told_at < REPORT_EVERY:
            return
        self._told, self._told_at = left, now
        line = "%d process%s left" % (left, "" if left == 1 else "es")
        if self._kill_at - now > 1:
            line += ", up to %d s to save and end" % (self._kill_at - now)
        self._request.progress({"line": line, "alive": left})


def _device_holders(gpus: List[int]) -> List[DeviceHolder]:
    """Processes that still have the run's GPUs open: no other run has them, so that these do not belong to gpurun."""
    holders: List[DeviceHolder] = []
    for process in processes.scan().values():
        shared = sorted(set(processes.gpus_open(process.pid)) & set(gpus))
        if shared and not processes.is_agent(process.pid):
            holders.append({**ending.describe([process])[0], "gpus": shared})
    return holders
