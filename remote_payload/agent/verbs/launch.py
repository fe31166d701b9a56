"""The verb ``launch``: at most one start of a run, whoever asks, however often, and whatever is cut off meanwhile.

The run's lock is taken first, ``mkdir runs/<id>`` is the claim, and the lock goes to the supervisor as an open descriptor: a
claim whose lock is free and that has no owner never started anything. Whoever finds the folder there attaches to what it finds.
"""

import json
import os
import shutil
import subprocess
import time
from typing import Any, Dict, List, Optional

from remote_payload.agent.box import gpus, incoming, locks
from remote_payload.agent.box.files import read_json, write_json
from remote_payload.agent.box.gpus import Gpu
from remote_payload.agent.run import allotment, causes, run_folder, secrets, spawn, state
from remote_payload.agent.wire.paths import BoxPaths, RunPaths, check_run_id
from remote_payload.agent.wire.redact import redact
from remote_payload.agent.wire.request import AgentError, Request

CONFIRM_LIMIT = 60.0  # seconds for the supervisor to say that it stands
QUOTED = 3  # lines of a supervisor that could not start
LOG_LIMIT = 1 << 30  # bytes


def launch(request: Request) -> Dict[str, Any]:
    """Starts the run, or attaches to it: ``{attached, status, code}``. Raises GpuBusy, BoxNotReady, NotStarted; nothing runs then."""
    run = request.paths.run(check_run_id(request.args.get("run_id")))
    lock = _claim(run)
    if lock is None:
        incoming.forget(request.paths, run.run_id)
        return _answer(run, attached=True)
    try:
        available = gpus.list_gpus() if request.args.get("gpus") else []
        wanted = _wanted(request.args, available)
        os.mkdir(run.folder, 0o700)
        given = _prepare(request, run, wanted, available or [])
        _start(request, run, lock, given, available or [])
        incoming.forget(request.paths, run.run_id)
    finally:
        if os.path.isdir(run.folder):
            os.close(lock)
        else:
            locks.leave_run(run, lock)
    return _answer(run, attached=False)


def _answer(run: RunPaths, attached: bool) -> Dict[str, Any]:
    """``code`` is the digest of the code that runs: whoever attaches may have meant another."""
    digest = (read_json(run.snapshot) or {}).get("digest")
    return {"attached": attached, "status": state.status_of(run), "code": digest}


def _claim(run: RunPaths) -> Optional[int]:
    """The run's lock if it is ours to start; None if it was started, once whoever is starting it now is done."""
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


def _wanted(args: Dict[str, Any], available: Optional[List[Gpu]]) -> int:
    wanted = args.get("gpus", 0)
    if wanted in (0, None):
        return 0
    if available is None:
        raise AgentError(
            "BoxNotReady", "the NVIDIA driver of the box does not answer", "Restart the box, or take another one."
        )
    if wanted == "all":
        return len(available)
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 0:
        raise AgentError("LaunchError", "%r GPUs" % (wanted,))
    if wanted > len(available):
        message = "the job asks for %d GPU%s, the box has %s" % (
            wanted,
            "" if wanted == 1 else "s",
            len(available) or "none",
        )
        raise AgentError(
            "BoxNotReady",
            message,
            "Take another box, or change resources.gpus (--set resources.gpus=all takes what is there).",
        )
    return wanted


def _prepare(request: Request, run: RunPaths, wanted: int, available: List[Gpu]) -> List[Gpu]:
    """Everything the supervisor finds in the run's folder; the run's GPUs. Undone if any of it fails."""
    args = request.args
    try:
        given: List[Gpu] = []
        if wanted:  # first of all: it is what may be refused
            given = allotment.enter(request.paths, run, available, wanted, bool(args.get("queue")))
        run_folder.take_code(request.paths, run, args.get("code") or {})
        if args.get("resume"):
            _inherit(request.paths, run, args)
        write_json(run.job, args.get("job") or {})
        for path in (run.log, run.events):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        run_folder.link_data(request.paths, run, args.get("data") or [])
        run_folder.link_outputs(run, args.get("outputs") or [])
        told = plan(request.paths, run, args, wanted)
        told["environment"]["PATH"] = run_folder.offer_python(run, args.get("interpreter"), told["environment"]["PATH"])
        write_json(run.launch, told)
        return given
    except BaseException:
        _undo(request, run)
        raise


def _inherit(paths: BoxPaths, run: RunPaths, args: Dict[str, Any]) -> None:
    source = paths.run(check_run_id(args["resume"].get("run_id")))
    if state.status_of(source)["phase"] != "finished":
        hint = "Stop it first: gpurun stop %s" % source.run_id
        raise AgentError("LaunchError", "run %s is still going, so there is nothing to resume" % source.run_id, hint)
    # gpurun's own recipes put every file that they write under its name by a rename; what a command does nobody knows.
    run_folder.inherit_outputs(source, run, share=bool(args.get("module")))


def plan(paths: BoxPaths, run: RunPaths, args: Dict[str, Any], gpus_wanted: int) -> Dict[str, Any]:
    """launch.json: what the supervisor starts, with which environment (no secrets) and limits."""
    return {
        "argv": arguments(args, gpus_wanted),
        "environment": environment(paths, run, args),
        "outputs": args.get("outputs") or [],
        "gpus": gpus_wanted,
        "queue": bool(args.get("queue")),
        "time_limit": args.get("time_limit"),
        "log_limit": args.get("log_limit") or LOG_LIMIT,
        "resume": args.get("resume"),
    }


def arguments(args: Dict[str, Any], gpus_wanted: int) -> List[str]:
    """The payload's argv: the job's own command, ``{gpus}`` and ``{processes}`` filled in, or a module, under torchrun if asked.

    ``{gpus}`` is 0 on the CPU; ``{processes}`` is what a launcher wants: as the job says, else one a GPU, at least 1.
    """
    processes = int(args.get("processes") or gpus_wanted or 1)
    if args.get("command"):
        numbers = {"{gpus}": str(gpus_wanted), "{processes}": str(processes)}
        words = [_filled(str(word), numbers) for word in args["command"]]
        return [spawn.program(words[0], args.get("interpreter"), args.get("variables") or {}), *words[1:]]
    interpreter, module = args.get("interpreter"), args.get("module")
    if not interpreter or not module:
        raise AgentError("LaunchError", "neither a command nor a module to start")
    if args.get("torchrun"):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        return [interpreter, *launcher, "-m", module]
    return [interpreter, "-m", module]


def _filled(word: str, numbers: Dict[str, str]) -> str:
    for place, number in numbers.items():
        word = word.replace(place, number)
    return word


def environment(paths: BoxPaths, run: RunPaths, args: Dict[str, Any]) -> Dict[str, str]:
    """What is set for the payload on top of the box's own variables; ARCHITECTURE.md, "What the payload meets"."""
    path = spawn.search_path(args.get("interpreter"), args.get("variables") or {})
    variables = {"PATH": path, "HF_HOME": paths.hf_home, "PYTHONUNBUFFERED": "1"}
    if args.get("payload"):
        places = [paths.payload(args["payload"]), os.environ.get("PYTHONPATH")]
        variables["PYTHONPATH"] = ":".join(place for place in places if place)
    variables.update({name: str(value) for name, value in (args.get("variables") or {}).items()})
    variables.update(
        GPURUN_RUN_ID=run.run_id,
        GPURUN_RUN_DIR=run.folder,
        GPURUN_OUTPUTS=run.outputs,
        GPURUN_EVENTS=run.events,
        CUDA_DEVICE_ORDER="PCI_BUS_ID",  # NVML's order, which gpurun counts in
    )
    if os.environ.get("GPURUN_FAKE_GPUS"):  # tests only: what is lent then is not there for torch to find
        variables["GPURUN_FAKE_GPUS"] = os.environ["GPURUN_FAKE_GPUS"]
    if args.get("resume"):
        variables["GPURUN_RESUME"] = str(args["resume"].get("checkpoint") or "auto")
    return variables


def _start(request: Request, run: RunPaths, lock: int, given: List[Gpu], available: List[Gpu]) -> None:
    """Starts the supervisor and waits for its word. Undone if it says that it could not start the payload."""
    order = {
        "root": request.paths.root,
        "folder": run.folder,
        "lock": lock,
        "given": [gpu.number for gpu in given],
        "gpus": [gpu._asdict() for gpu in available],
        "variables": secrets.place(run.run_id, request.args.get("secrets") or {}),
    }
    with open(run.supervisor_log, "ab") as log:
        process = subprocess.Popen(
            spawn.agent_command("supervise", run.run_id),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            env=dict(box_environment(), **gpus.stand_in()),
            pass_fds=[lock],
            start_new_session=True,
        )
    try:
        answer, _ = process.communicate(json.dumps(order).encode("ascii"), timeout=CONFIRM_LIMIT)
    except subprocess.TimeoutExpired:
        raise AgentError(
            "StartUnconfirmed", "the box did not confirm the start in time", "It may have started: gpurun status."
        ) from None
    told = json.loads(answer.decode("utf-8")) if answer.strip() else {"error": _last_words(run)}
    if "error" in told:
        secrets.remove(run.run_id)
        _undo(request, run)
        if told.get("errno"):
            raise OSError(told["errno"], told["error"])
        raise AgentError("NotStarted", "the run's supervisor could not start: %s" % told["error"])


def _last_words(run: RunPaths) -> str:
    """Why a supervisor ended without an answer: the end of its log, which goes with the run's folder."""
    said = [line.strip() for line in causes.tail(run.supervisor_log).splitlines() if line.strip()]
    return redact("; ".join(said[-QUOTED:])) or "it ended without a word"


def box_environment() -> Dict[str, str]:
    """The box's own variables, without those of this SSH session and of any other run."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("SSH_", "GPURUN_"))}


def _undo(request: Request, run: RunPaths) -> None:
    """Takes the claim back: nothing was started, and the next try finds everything as it was."""
    run_folder.give_code_back(request.paths, run, request.args.get("code") or {})
    shutil.rmtree(run.folder, ignore_errors=True)
