"""Verb ``launch``: at most one start of a run, however often it is asked for, and whatever fails meanwhile.

The run's lock is taken first, ``mkdir runs/<id>`` is the claim, and the lock goes to the supervisor as an open descriptor: a
claim with a free lock and without ``owner.json`` never started anything. A request that finds the folder attaches to the run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Dict, List, Optional, Tuple

from remote_payload.agent.box import gpus, incoming, locks
from remote_payload.agent.box.files import read_json, write_json
from remote_payload.agent.box.gpus import Gpu
from remote_payload.agent.box.watch import Watch
from remote_payload.agent.run import alive, causes, events, order, run_folder, secrets, slot, spawn, state
from remote_payload.agent.run.checkpoints import of_run
from remote_payload.agent.run.checkpoints.rule import rule_of_job
from remote_payload.agent.run.order import Order
from remote_payload.agent.run.payload_command import launch_file
from remote_payload.agent.run.queue import giving, health
from remote_payload.agent.run.queue.allotment import name
from remote_payload.agent.run.queue.choice import Needs
from remote_payload.agent.verbs.seal import forget_data
from remote_payload.agent.wire import launch_request
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.launch_request import LaunchRequest, Resume
from remote_payload.agent.wire.paths import BoxPaths, RunPaths
from remote_payload.agent.wire.redact import redact
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Launched, Status

CONFIRM_LIMIT = 60.0  # seconds for the supervisor to confirm the start
FIRST_MOMENT = 0.25  # seconds: a missing module or a syntax error ends a Python program in less
QUOTED = 3  # lines of a supervisor that could not start


def launch(request: Request) -> Launched:
    """Starts the run, or attaches to it: ``{attached, status, code}``. Raises GpuBusy, BoxNotReady, NotStarted; nothing runs then.

    With ``watch`` the answer waits for a moment, so that a program that ends at once is told as over.
    """
    asked = request.fields("LaunchError")
    answer = start(request.paths, launch_request.read(asked))
    if asked.flag("watch") and answer["status"]["phase"] == "running":
        answer["status"] = _after_first_moment(request.run())
    return answer


def start(paths: BoxPaths, asked: LaunchRequest, there: Optional[List[Gpu]] = None) -> Launched:
    """As ``launch``. ``there`` are the GPUs of the box where they were read a moment ago."""
    run = paths.run(asked.run_id)
    lock = _claim(run)
    if lock is None:
        incoming.forget(paths, run.run_id)
        return _answer(run, attached=True)
    try:
        if asked.slurm is not None:
            _submit_to_slurm(paths, run, asked)
        else:
            available = (gpus.list_gpus() if there is None else there) if asked.gpus else []
            needs = Needs(_wanted(paths, asked, available), asked.vram, asked.disk)
            os.mkdir(run.folder, 0o700)
            given = _prepare(paths, run, asked, needs, available or [])
            _start(paths, run, asked, lock, given, available or [])
        incoming.forget(paths, run.run_id)
        if asked.resume and asked.resume.outputs:
            forget_data(paths, asked.resume.outputs)  # they are the run's own now
    finally:
        if os.path.isdir(run.folder) and asked.slurm is None:
            os.close(lock)
        else:
            locks.leave_run(run, lock)
    return _answer(run, attached=False)


def _answer(run: RunPaths, attached: bool) -> Launched:
    """``code`` is the digest of the code that runs: a request that attaches may have sent another."""
    digest = (read_json(run.snapshot) or {}).get("digest")
    return {"attached": attached, "status": state.status_of(run), "code": digest}


def _after_first_moment(run: RunPaths) -> Status:
    """The status after FIRST_MOMENT, or as soon as the program is over: most mistakes of a start show within it."""
    watched, end = Watch(run.folder), time.monotonic() + FIRST_MOMENT
    try:
        while slot.read(run) is None and time.monotonic() < end:
            watched.wait(max(0.0, end - time.monotonic()))
    finally:
        watched.close()
    return state.status_of(run)


def _claim(run: RunPaths) -> Optional[int]:
    """The run's lock if the run was never started; else None, after any start that is under way is over."""
    deadline = time.monotonic() + CONFIRM_LIMIT
    while time.monotonic() < deadline:
        if not os.path.isdir(run.folder):
            lock = locks.take_run(run)
            if lock is not None and not os.path.isdir(run.folder):
                os.makedirs(os.path.dirname(run.folder), 0o700, exist_ok=True)
                return lock
            if lock is not None:
                os.close(lock)
        elif os.path.exists(run.owner) or not locks.is_held(locks.run_lock(run)):
            return None
        time.sleep(0.05)
    raise AgentError(
        "StartUnconfirmed",
        "another connection has been starting this run for a minute",
        "Ask later: gpurun status %s" % run.run_id,
    )


def _wanted(paths: BoxPaths, asked: LaunchRequest, available: Optional[List[Gpu]]) -> int:
    """How many GPUs the run gets; of all those that are not set aside. Raises AgentError where the box has fewer, or does not say."""
    if asked.gpus == 0:
        return 0
    if available is None:
        raise AgentError(
            "BoxNotReady", "the NVIDIA driver of the box does not answer", "Restart the box, or take another one."
        )
    aside = health.set_aside(paths)
    whole = [gpu for gpu in available if name(gpu) not in aside] or available
    wanted = asked.gpus if isinstance(asked.gpus, int) else len(whole)
    if wanted > len(available):
        plural, has = "" if wanted == 1 else "s", len(available) or "none"
        raise AgentError(
            "BoxNotReady",
            "the job asks for %d GPU%s, the box has %s" % (wanted, plural, has),
            "Take another box, or change resources.gpus (--set resources.gpus=all takes what is there).",
        )
    return wanted


def _prepare(paths: BoxPaths, run: RunPaths, asked: LaunchRequest, needs: Needs, available: List[Gpu]) -> List[Gpu]:
    """Fills the run's folder for the supervisor; the run's GPUs. Undone if any of it fails."""
    try:
        given: List[Gpu] = []
        if needs.gpus and asked.slurm is None:  # before all else: it is the step that is most often refused
            given = giving.enter(paths, run, available, needs, asked.queue)
        run_folder.take_code(paths, run, asked.code)
        source = asked.resume or (Resume(asked.continues, "") if asked.continues else None)
        left_out: List[str] = []
        if source:
            asked, left_out = _go_on(paths, run, asked, source)
        write_json(run.job, asked.job)
        for path in (run.log, run.events):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        for line in left_out:
            events.append(run.events, "flag", name="checkpoint_left_out", message=line)
        run_folder.link_data(paths, run, asked.data)
        run_folder.link_outputs(run, asked.outputs)
        order.write_launch(run, launch_file(paths, run, asked, needs))
        return given
    except BaseException:
        _undo(paths, run, asked)
        raise


def _go_on(paths: BoxPaths, run: RunPaths, asked: LaunchRequest, resume: Resume) -> Tuple[LaunchRequest, List[str]]:
    """Gives the run the outputs that it begins with. The request with the checkpoint that is taken, and what was left out, and why."""
    left_out = {} if resume.outputs else _inherit(paths.run(resume.run_id), run, asked)
    if resume.outputs:
        run_folder.take_outputs(paths, run, resume.outputs)
    if asked.command and asked.resume:
        chosen = of_run.choose(run, rule_of_job(asked.job), resume.checkpoint, asked.outputs)
        asked = asked._replace(resume=resume._replace(checkpoint=chosen))
    return asked, ["%s was not copied from %s: %s" % (path, resume.run_id, why) for path, why in left_out.items()]


def _inherit(source: RunPaths, run: RunPaths, asked: LaunchRequest) -> Dict[str, str]:
    """Copies the outputs of the run before. Of a command's, checkpoints that are not complete are left out: by path, with the reason."""
    if state.status_of(source)["phase"] != "finished":
        hint = "Stop it first: gpurun stop %s" % source.run_id
        raise AgentError("LaunchError", "run %s is still going, so there is nothing to resume" % source.run_id, hint)
    await_outputs(source)
    left_out: Dict[str, str] = {}
    if asked.command:
        _, unfinished = of_run.list_foreign(source, rule_of_job(asked.job), is_running=False)
        left_out = {each["path"]: each["why"] for each in unfinished}
    # gpurun's own recipes rename every complete file into place; a command may write in place.
    run_folder.inherit_outputs(source, run, share=bool(asked.module), without=left_out)
    return left_out


def await_outputs(source: RunPaths) -> None:
    """Until all results of a run that is over lie in its outputs: its supervisor moves them there, or this does where it was killed."""
    deadline = time.monotonic() + CONFIRM_LIMIT
    while alive.is_supervised(source) and not os.path.exists(source.manifest) and time.monotonic() < deadline:
        time.sleep(0.05)
    launched = order.read_launch(source)
    if launched is not None and not os.path.exists(source.manifest):
        run_folder.gather_outputs(source, launched.outputs)


def _submit_to_slurm(paths: BoxPaths, run: RunPaths, asked: LaunchRequest) -> None:
    """Fills the run's folder and gives the run to Slurm. Undone where Slurm refuses it."""
    from remote_payload.agent.run.slurm import job  # for clusters alone

    if not isinstance(asked.gpus, int):
        raise AgentError(
            "LaunchError", "a cluster has no number of GPUs to take all of", "Set resources.gpus to a number."
        )
    os.mkdir(run.folder, 0o700)
    _prepare(paths, run, asked, Needs(asked.gpus, asked.vram, asked.disk), [])
    launch = order.read_launch(run)
    assert launch is not None
    try:
        job.submit(paths, run, launch, asked.secrets)
    except AgentError as error:
        if error.kind != "StartUnconfirmed":
            _undo(paths, run, asked)
        raise


def _start(
    paths: BoxPaths, run: RunPaths, asked: LaunchRequest, lock: int, given: List[Gpu], available: List[Gpu]
) -> None:
    """Starts the supervisor and waits for its answer. Undone where the payload could not be started."""
    numbers = tuple(gpu.number for gpu in given)
    environment = secrets.place(run.run_id, asked.secrets)
    start = order.decode_start(
        _start_supervisor(run, Order(paths.root, run.folder, lock, numbers, tuple(available), environment))
    )
    if start is None:
        start = order.Start(_last_lines(run))
    if start.error is not None:
        secrets.remove(run)
        _undo(paths, run, asked)
        if start.errno:
            raise OSError(start.errno, start.error)
        raise AgentError("NotStarted", "the run's supervisor could not start: %s" % start.error)


def _start_supervisor(run: RunPaths, supervisor_order: Order) -> bytes:
    """What the supervisor answers. Raises AgentError StartUnconfirmed when it does not in time."""
    with open(run.supervisor_log, "ab") as log:
        process = subprocess.Popen(
            spawn.agent_command("supervise", run.run_id),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            env=dict(spawn.box_environment(), **gpus.stand_in()),
            pass_fds=[supervisor_order.lock],
            start_new_session=True,
        )
    try:
        return process.communicate(supervisor_order.encode(), timeout=CONFIRM_LIMIT)[0]
    except subprocess.TimeoutExpired:
        raise AgentError(
            "StartUnconfirmed", "the box did not confirm the start in time", "It may have started: gpurun status."
        ) from None


def _last_lines(run: RunPaths) -> str:
    """Why a supervisor ended without an answer: the end of its log, which is removed with the run's folder."""
    lines = [line.strip() for line in causes.tail(run.supervisor_log).splitlines() if line.strip()]
    return redact("; ".join(lines[-QUOTED:])) or "it ended without a message"


def _undo(paths: BoxPaths, run: RunPaths, asked: LaunchRequest) -> None:
    """Takes the claim back: nothing was started, and the next try finds everything as it was."""
    run_folder.give_code_back(paths, run, asked.code)
    if asked.resume and asked.resume.outputs:
        run_folder.give_outputs_back(paths, run, asked.resume.outputs)
    shutil.rmtree(run.folder, ignore_errors=True)
