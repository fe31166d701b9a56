"""How the payload is started: its argv, its environment and its limits, as ``launch.json`` holds them."""

import os
from typing import Collection, Dict, Iterable, Tuple

from remote_payload.agent.box.gpus import Gpu
from remote_payload.agent.run import run_folder, secrets, spawn
from remote_payload.agent.run.order import LOG_LIMIT, LaunchFile
from remote_payload.agent.run.queue import allotment
from remote_payload.agent.run.queue.choice import Needs
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.launch_request import Boxes, LaunchRequest, to_keep
from remote_payload.agent.wire.paths import BoxPaths, RunPaths


def launch_file(paths: BoxPaths, run: RunPaths, asked: LaunchRequest, needs: Needs) -> LaunchFile:
    """What the supervisor starts, and what it waits for. The run's code must be in place: ``python`` may have to be linked beside it."""
    environment = variables(paths, run, asked)
    environment["PATH"] = run_folder.offer_python(run, asked.interpreter, environment["PATH"])
    return LaunchFile(
        argv=arguments(asked, needs.gpus),
        environment=environment,
        outputs=asked.outputs,
        gpus=needs.gpus,
        queue=asked.queue,
        time_limit=asked.time_limit,
        log_limit=asked.log_limit or LOG_LIMIT,
        resume=asked.resume._asdict() if asked.resume else None,
        cost_limit=asked.cost_limit,
        continues=asked.continues or (asked.resume.run_id if asked.resume else None),
        asked=to_keep(asked),
        vram=needs.vram,
        disk=needs.disk,
        slurm=asked.slurm,
        boxes=asked.boxes,
    )


def arguments(asked: LaunchRequest, gpus: int) -> Tuple[str, ...]:
    """The payload's argv: the job's own command with ``{gpus}`` and ``{processes}`` replaced, or a module, under torchrun if asked.

    ``{gpus}`` is 0 on the CPU; ``{processes}`` is for a launcher: the job's number, else one a GPU, at least 1.
    Raises AgentError LaunchError where there is nothing to start.
    """
    processes = str(asked.processes or gpus or 1)
    if asked.command:
        words = [word.replace("{gpus}", str(gpus)).replace("{processes}", processes) for word in asked.command]
        return (spawn.program(words[0], asked.interpreter, asked.variables), *words[1:])
    if not asked.interpreter or not asked.module:
        raise AgentError("LaunchError", "neither a command nor a module to start")
    alone = () if asked.boxes else ("--standalone",)
    launcher = ("-m", "torch.distributed.run", *alone, "--nproc-per-node", processes) if asked.torchrun else ()
    return (asked.interpreter, *launcher, "-m", asked.module)


def variables(paths: BoxPaths, run: RunPaths, asked: LaunchRequest) -> Dict[str, str]:
    """The payload's variables on top of the box's own, without secrets; ARCHITECTURE.md, "What the payload meets"."""
    path = spawn.search_path(asked.interpreter, asked.variables)
    found = {"PATH": path, "HF_HOME": paths.hf_home, "PYTHONUNBUFFERED": "1"}
    if asked.payload:
        places = [paths.payload(asked.payload), os.environ.get("PYTHONPATH")]
        found["PYTHONPATH"] = ":".join(place for place in places if place)
    if asked.boxes:
        found.update(of_several_boxes(asked.boxes))
    found.update(asked.variables)
    found.update(
        GPURUN_RUN_ID=run.run_id,
        GPURUN_RUN_DIR=run.folder,
        GPURUN_OUTPUTS=run.outputs,
        GPURUN_EVENTS=run.events,
        CUDA_DEVICE_ORDER="PCI_BUS_ID",  # NVML's order, which gpurun counts in
    )
    if os.environ.get("GPURUN_FAKE_GPUS"):  # tests only: torch finds no GPU where a run was given such a one
        found["GPURUN_FAKE_GPUS"] = os.environ["GPURUN_FAKE_GPUS"]
    if asked.resume:
        found["GPURUN_RESUME"] = asked.resume.checkpoint
    return found


def of_several_boxes(boxes: Boxes) -> Dict[str, str]:
    """What tells a program where the others are: torchrun reads its options from PET_* where its command line has none
    (torch/distributed/argparse_util.py), other launchers have the common names. Static rendezvous: c10d publishes the machine's own
    name, which the others may not resolve. NCCL takes "=eth1" for this interface alone, gloo its name.
    """
    address, port, rank = boxes.address, str(boxes.rendezvous), str(boxes.rank)
    return {
        "PET_NNODES": str(boxes.size),
        "PET_NODE_RANK": rank,
        "PET_MASTER_ADDR": address,
        "PET_MASTER_PORT": port,
        "NUM_NODES": str(boxes.size),
        "NODE_RANK": rank,
        "MASTER_ADDR": address,
        "MASTER_PORT": port,
        "NCCL_SOCKET_IFNAME": "=" + boxes.interface,
        "GLOO_SOCKET_IFNAME": boxes.interface,
    }


def environment(
    launch: LaunchFile, gpus: Iterable[Gpu], given: Collection[int], secret: Dict[str, str]
) -> Dict[str, str]:
    """All variables of the payload: the box's own, those of ``launch.json``, the secrets, and the GPUs that it was ``given``."""
    found = {**os.environ, **launch.environment}
    if secrets.TOKEN_PATH in secret:
        found.pop(secrets.TOKEN, None)  # a token of the box's own would win over the file
    found.update(secret)
    found["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, given))
    found[allotment.VARIABLE] = " ".join(allotment.name(gpu) for gpu in gpus if gpu.number in given)
    return found
