"""What the supervisor of a run is told, and what it answers: ``launch.json`` says what to start and holds no secrets; the ``Order`` on its
standard input has the lock, the GPUs and the secrets; its ``Start`` on its standard output says whether the payload was started.
"""

import json
from typing import Any, Dict, NamedTuple, Optional, Tuple

from remote_payload.agent.box.files import read_json, write_json
from remote_payload.agent.box.gpus import Gpu
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.fields import Fields
from remote_payload.agent.wire.launch_request import Boxes, read_boxes
from remote_payload.agent.wire.paths import RunPaths

NO_LOCK = -1
LOG_LIMIT = 1 << 30  # bytes, where the job names no limit


class LaunchFile(NamedTuple):
    """``launch.json``. Later versions of gpurun read it too: ``sample`` the command, ``clean`` every path in it."""

    argv: Tuple[str, ...]
    environment: Dict[str, str]  # on top of the variables of the box
    outputs: Tuple[str, ...] = ()
    gpus: int = 0  # how many the run wants
    queue: bool = False
    time_limit: Optional[float] = None  # seconds
    log_limit: int = LOG_LIMIT  # bytes
    resume: Optional[Dict[str, Any]] = None  # as it was asked for
    cost_limit: Optional[float] = None  # seconds that the job's money lasts
    continues: Optional[str] = None  # the run whose place it took
    asked: Optional[Dict[str, Any]] = (
        None  # the request (``launch_request.to_keep``); None where an older agent started the run
    )
    vram: int = 0  # bytes of memory that each GPU must have, 0 where the job does not say
    disk: int = 0  # bytes that the run will write by its forecast, 0 where that is not known
    slurm: Optional[Dict[str, Any]] = None  # what the job says for Slurm, where Slurm starts the run
    boxes: Optional[Boxes] = None  # where the run is on several boxes


def write_launch(run: RunPaths, launch: LaunchFile) -> None:
    """Raises OSError."""
    write_json(run.launch, dict(launch._asdict(), boxes=launch.boxes._asdict() if launch.boxes else None))


def read_launch(run: RunPaths) -> Optional[LaunchFile]:
    """What the run started, None where the file is missing or damaged."""
    value = read_json(run.launch)
    try:
        return None if value is None else _parse_launch(Fields(value))
    except AgentError:
        return None


def _parse_launch(fields: Fields) -> LaunchFile:
    return LaunchFile(
        tuple(fields.texts("argv")),
        fields.text_by_name("environment"),
        tuple(fields.texts("outputs")),
        fields.whole("gpus"),
        fields.flag("queue"),
        fields.optional_number("time_limit"),
        fields.whole("log_limit") or LOG_LIMIT,
        fields.mapping("resume") or None,
        fields.optional_number("cost_limit"),
        fields.run_id("continues") if "continues" in fields else None,
        fields.mapping("asked") or None,
        fields.whole("vram"),
        fields.whole("disk"),
        fields.mapping("slurm") if "slurm" in fields else None,
        read_boxes(fields.optional_fields("boxes")),
    )


class Order(NamedTuple):
    """The supervisor's standard input."""

    root: str
    folder: str  # of the run
    lock: int  # the descriptor of the run's lock; NO_LOCK where Slurm started the run
    given: Tuple[int, ...]  # numbers of the GPUs that the run has already
    gpus: Tuple[Gpu, ...]  # all GPUs of the box
    secrets: Dict[str, str]  # variables of the payload, which lie in no file

    def __repr__(self) -> str:
        return "Order(%r)" % self.folder  # without the secrets

    def encode(self) -> bytes:
        """The order as JSON."""
        gpus = [gpu._asdict() for gpu in self.gpus]
        return json.dumps(dict(self._asdict(), gpus=gpus)).encode("ascii")


def decode_order(raw: bytes) -> Order:
    """The order from JSON. Raises ValueError or AgentError for anything else."""
    fields = Fields(json.loads(raw.decode("ascii")))
    return Order(
        fields.text("root"),
        fields.text("folder"),
        fields.whole("lock"),
        tuple(fields.wholes("given")),
        tuple(map(_parse_gpu, fields.list_of_fields("gpus"))),
        fields.text_by_name("secrets"),
    )


def _parse_gpu(fields: Fields) -> Gpu:
    return Gpu(
        fields.whole("number"),
        fields.text("uuid"),
        fields.text("name"),
        fields.whole("memory_total"),
        fields.whole("memory_used"),
        fields.optional_whole("utilisation"),
    )


class Start(NamedTuple):
    """The supervisor's answer: ``error`` (and ``errno``, where it has one) says why the payload could not be started."""

    error: Optional[str] = None
    errno: Optional[int] = None

    def encode(self) -> bytes:
        """The answer as one line of JSON."""
        value: Dict[str, Any] = {"started": True} if self.error is None else self._asdict()
        return json.dumps(value).encode("ascii") + b"\n"


def decode_start(raw: bytes) -> Optional[Start]:
    """The answer, None where the supervisor ended without one. Raises ValueError or AgentError for anything else."""
    if not raw.strip():
        return None
    fields = Fields(json.loads(raw.decode("utf-8")))
    return Start(fields.optional_text("error"), fields.optional_whole("errno"))
