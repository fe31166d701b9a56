"""The verb ``stop``: the run's supervisor ends the payload and records it; then we look for ourselves that nothing is left.

A supervisor that does not answer is overruled, and an orphaned run is ended from here. An exit that came first is kept.
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
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.fields import Fields
from remote_payload.agent.wire.paths import RunPaths
from remote_payload.agent.wire.protocol import ExitRecord
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import DeviceHolder, Stopped

PATIENCE = 7.0  # seconds beyond the grace that the supervisor gets before it is overruled
TOLD_WITHIN = 10.0  # seconds beyond the grace after which survivors are named: within a minute, with the usual 45
LOOK_EVERY = 0.1


def stop(request: Request) -> Stopped:
    """Ends a run: ``{status, survivors: [{pid, command, state}], device_holders: [{pid, command, state, gpus}]}``.

    Nobody survives is the proof of success; who holds the GPUs all the same is somebody else. ``grace`` seconds lie between
    TERM and KILL. Goes on when the laptop is gone. Raises AgentError for a run that is not there.
    """
    run, grace = request.run(), _grace(request.fields())
    before = state.status_of(run)
    if before.get("cause") == "folder_deleted":
        raise AgentError("RunLost", "the box knows no run %s" % run.run_id, "gpurun list shows the runs it knows.")
    deadline = time.monotonic() + grace + TOLD_WITHIN
    answered = before["phase"] == "finished" or before["orphaned"] or _ask_supervisor(request, run, grace)
    survivors = _end_what_is_left(request, run, grace if before["orphaned"] else 0.0, answered, deadline)
    if before["phase"] != "finished" and not survivors:
        _record(run)
    if not survivors:
        secrets.remove(run.run_id)
    status = state.status_of(run)
    return {
        "status": status,
        "survivors": ending.describe(survivors),
        "device_holders": _device_holders(before["gpus"] or status["gpus"]),
    }


def _grace(asked: Fields) -> float:
    seconds = asked.optional_number("grace")
    if seconds is None:
        return ending.GRACE
    if not 0 <= seconds <= ending.LONGEST_GRACE:
        raise AgentError("GpurunError", "a grace of %g seconds" % seconds)
    return seconds


def _ask_supervisor(request: Request, run: RunPaths, grace: float) -> bool:
    """Asks it to end the payload and waits until it has; False when it does not answer."""
    ending.request_grace(run, grace)
    deadline = time.monotonic() + grace + PATIENCE
    asked: Optional[Process] = None
    told = -1
    while time.monotonic() < deadline:
        supervisor = _supervisor(run)
        if supervisor is not None and asked is None:
            processes.send(supervisor, signal.SIGUSR1)
            processes.send(supervisor, signal.SIGCONT)
            asked = supervisor
        left = len(alive.find(run))
        if not alive.is_supervised(run) or (not left and slot.read(run) is not None):
            return True
        if left != told:
            told = left
            _tell(request, left)
        time.sleep(LOOK_EVERY)
    return False


def _supervisor(run: RunPaths) -> Optional[Process]:
    return Box().supervisor(run.run_id, owner.read(run))


def _end_what_is_left(request: Request, run: RunPaths, grace: float, answered: bool, deadline: float) -> List[Process]:
    """An orphan's processes, or those that a supervisor left or did not dare; with it, if it does not answer."""
    left = alive.find(run)
    if left:
        _tell(request, len(left))
    supervisor = _supervisor(run)
    if not answered and supervisor is not None:
        ending.signal_all([supervisor], signal.SIGKILL)
    return ending.terminate(lambda: alive.find(run), grace, max(2.0, deadline - time.monotonic() - grace))


def _record(run: RunPaths) -> None:
    """Says ``cancelled`` where nobody else can any more; whoever holds the lock or wrote first is right."""
    lock = locks.take_run(run)
    if lock is None:
        return
    if state.exit_of(run) is None and os.path.isdir(run.folder):
        slot.write(run, ExitRecord("cancelled", 128 + signal.SIGKILL, time.time()))
    locks.leave_run(run, lock)


def _tell(request: Request, left: int) -> None:
    request.progress({"line": "%d process%s left" % (left, "" if left == 1 else "es"), "alive": left})


def _device_holders(gpus: List[int]) -> List[DeviceHolder]:
    """Who has the run's GPUs open all the same: other runs cannot, so that these are somebody else's."""
    holders: List[DeviceHolder] = []
    for process in processes.scan().values():
        shared = sorted(set(processes.gpus_open(process.pid)) & set(gpus))
        if shared and not processes.is_agent(process.pid):
            holders.append({**ending.describe([process])[0], "gpus": shared})
    return holders
