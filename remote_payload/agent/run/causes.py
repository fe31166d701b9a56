"""Why a run failed, by how it ended and by its last lines: a table of messages that people really meet.

The messages are those of torch, transformers, huggingface_hub, NCCL and the C library. Earlier rows win: when one rank runs
out of memory, the others report a lost peer. ``explain`` is pure.
"""

import functools
import os
import re
from typing import List, NamedTuple, Optional, Pattern, Tuple

from remote_payload.agent.run import raised
from remote_payload.agent.wire.protocol import ExitRecord
from remote_payload.agent.wire.redact import redact

TAIL_BYTES = 128 * 1024
TAIL_LINES = 2000  # eight ranks, each with its traceback and those of its chain
MAX_LINE = 2000
MAX_EVIDENCE = 500


class Signature(NamedTuple):
    """A cause's name, a regular expression for the line that shows it, and the one thing to change."""

    name: str
    expression: str
    advice: str

    @property
    def pattern(self) -> Pattern[str]:
        """Compiled when it is first needed: most agents never explain a failure, and their start would take a third longer."""
        return _compiled(self.expression)


@functools.lru_cache(maxsize=None)
def _compiled(expression: str) -> Pattern[str]:
    return re.compile(expression)


def _row(name: str, advice: str, *patterns: str) -> Signature:
    return Signature(name, "|".join(patterns), advice)


DEVICE_ASSERT = (
    "A number on the GPU is out of its range, often a token or label that is not below the model's size: "
    "CUDA_LAUNCH_BLOCKING=1 under environment.variables makes the traceback name the line."
)
SIGNATURES: Tuple[Signature, ...] = (
    _row(
        "cannot_start",
        "Correct the job's command, or have environment.requirements bring the program.",
        r"^gpurun: cannot start ",  # spawn.py's own line
    ),
    _row(
        "cuda_oom",
        "Lower the micro-batch or the maximum length (the effective batch may stay), or turn on gradient checkpointing.",
        r"CUDA out of memory",
        r"MPS backend out of memory",
        r"CUDA error: out of memory",
        r"(?:CUBLAS|CUDNN)_STATUS_ALLOC_FAILED",
        r"Cuda failure (?:\d+ )?'out of memory'",
    ),
    _row("device_assert", DEVICE_ASSERT, r"block: \[\d+,\d+,\d+\], thread: .*Assertion"),
    _row("device_assert", DEVICE_ASSERT, r"device-side assert triggered"),
    _row(
        "gpu_broken",
        "The GPU failed, not the program: submit the run again. A GPU that fails two runs at once gets no further run.",
        # Only what a program cannot cause: an illegal address or a failed launch may be a mistake in a kernel.
        r"uncorrectable (?:ECC|NVLink) error",
        r"CUDA error: (?:unknown error|hardware stack error)",
        r"CUDA-capable device\(s\) is/are busy or unavailable",
        r"GPU is lost",
        r"Unable to determine the device handle for GPU",
        r"fallen off the bus",
    ),
    _row(
        "shared_memory",
        "/dev/shm of this container is too small: fewer data-loader workers, or a box that is started with a larger --shm-size.",
        r"killed by signal: Bus error",
        r"insufficient shared memory \(shm\)",
        r"shared memory segment /dev/shm",
        r"unable to (?:write to|open) file </torch_",
    ),
    _row(
        "host_oom",
        "The box's memory (not the GPU's) ran out: fewer data-loader workers, data read in pieces, or a box with more RAM.",
        r"killed by signal: Killed",
        r"DefaultCPUAllocator: (?:can't|not enough memory)",
        r"^MemoryError\b",
        r"Cannot allocate memory",
        r"std::bad_alloc",
    ),
    _row(
        "disk_full",
        "Free disk on the box (gpurun clean shows what may go), keep fewer checkpoints, or take a box with a bigger disk.",
        r"No space left on device",
        r"Disk quota exceeded",
        r"PytorchStreamWriter failed writing",
        r"os error 28\b",  # safetensors and tokenizers, from Rust
    ),
    _row(
        "gated_model",
        "Accept the model's terms on its page with your token's account, and name the model under hub.models in the job file.",
        r"GatedRepoError",
        r"Cannot access gated repo",
        r"You are trying to access a gated repo",
        r"is restricted and you are not in the authorized list",
        r"Access to model \S+ is restricted",
        r"40[13] Client Error",
        r"Invalid user token",
    ),
    _row(
        "missing_model",
        "Check the model's name and revision on the hub; a private one needs a token that may read it.",
        r"(?:Repository|Revision|Entry) ?Not ?Found",
        r"is not a local folder and is not a valid model identifier",
        r"does not appear to have a file named",
        r"Repo id must be in the form",
    ),
    _row(
        "driver_too_old",
        "Ask for a torch built for this driver's CUDA in the environment's requirements, or take a box with a newer driver.",
        r"The NVIDIA driver on your system is too old",
        r"CUDA driver version is insufficient for CUDA runtime version",
        r"forward compatibility was attempted on non supported HW",
        r"system has unsupported display driver",
        r"no kernel image is available for execution on the device",
        r"provided PTX was compiled with an unsupported toolchain",
        r"the driver runs CUDA \S+, this torch is built for ",  # train/lent_gpus.py
    ),
    _row(
        "gpu_unusable",
        "Leave out environment.interpreter, so that gpurun finds or builds a torch with CUDA. On the CPU: resources: {gpus: 0}.",
        r"this run was lent \d+ GPUs?, torch \S+ can use \d+: this torch is a CPU build",
    ),
    _row(
        "gpu_unusable",
        "torch could not use the GPU that this run was given: take a torch built for the box's driver, or another box.",
        r"this run was lent \d+ GPUs?, torch \S+ can use \d+",
    ),
    _row(
        "no_gpu",
        "The process sees no GPU: ask for one under resources.gpus, or use backend gloo and device cpu.",
        r"ProcessGroupNCCL is only supported with GPUs",
        r"Distributed package doesn't have NCCL built in",
        r"Torch not compiled with CUDA enabled",
        r"Found no NVIDIA driver on your system",
        r"No CUDA GPUs are available",
        r"no CUDA-capable device is detected",
    ),
    _row(
        "dtype_mismatch",
        "Two parts of the model differ in dtype: cast where the traceback says, often the input of a head kept in fp32.",
        r"(?:must|to) have the same dtype",
        r"expected scalar type \w+ but found",
        r"Input type \(.+\) and (?:weight|bias) type \(.+\) should be the same",
        r"not implemented for '(?:Half|BFloat16)'",
    ),
    _row(
        "renamed_argument",
        "A library renamed or dropped this argument: use the new name, or pin the version your code was written for.",
        r"TypeError: .*got an unexpected keyword argument '",
    ),
    _row(
        "missing_module",
        "Add the package to the environment's requirements in the job file.",
        r"(?:ModuleNotFoundError|ImportError): (?:No module named|cannot import name)",
        r"cannot open shared object file",
        r"requires the \S+ library but it was not found",
    ),
    _row(
        "timed_out",
        "One rank waited for another that was busy or gone: find that rank's error further up, or raise the group's timeout.",
        r"Watchdog caught collective operation timeout",
        r"Timed out (?:waiting|initializing process group|after \d+ seconds waiting)",
        r"DistStoreError: Timed out",
        r"wait timeout after \d+ms",
    ),
    _row(
        "connection_lost",
        "The box lost its way to the hub or to another rank: submit again; HF_HUB_DISABLE_XET=1 helps when downloads stall.",
        r"We couldn't connect to '",
        r"LocalEntryNotFoundError",
        r"(?:Read|Connect|Pool)Timeout\b",
        r"Connection(?:Reset|Refused|Aborted)?Error\b",
        r"Connection (?:reset|closed) by peer",
        r"Name or service not known",
        r"Temporary failure in name resolution",
        r"ncclRemoteError",
        r"IncompleteRead",
    ),
)
# Often only a consequence of another error: they count where the exception that ended the run is one of them.
SOFT = ("timed_out", "connection_lost")
DECORATION = re.compile(r"[\W_]*")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b.|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Explanation(NamedTuple):
    """A status's cause, with the line that shows it and the one thing to change (either may be None)."""

    cause: str
    evidence: Optional[str]
    advice: Optional[str]


def explain(record: Optional[ExitRecord], text: str, oom_kills: int, disk_full: bool) -> Explanation:
    """Why a run did not succeed. ``record`` is None where no supervisor recorded its end.

    ``oom_kills``: processes that the kernel ended since the start because memory ran out; ``disk_full``: no space was free at the end.
    """
    lines = meaningful_lines(text)
    by_name = {signature.name: signature for signature in SIGNATURES}
    plain = "%s %d" % (record.kind, record.number) if record else "vanished"
    if oom_kills and (record is None or record.number):
        evidence = "the kernel ended %d process(es) of this container for want of memory" % oom_kills
        return Explanation("host_oom", evidence, by_name["host_oom"].advice)
    root = raised.root(lines)
    for signature in SIGNATURES:
        search = signature.pattern.search
        at = next((at for at in reversed(range(len(lines))) if search(lines[at])), None)
        if at is not None and (signature.name not in SOFT or _is_the_cause(signature, root, lines, at)):
            return Explanation(signature.name, _evidence(lines[at]), signature.advice)
    if disk_full:
        return Explanation("disk_full", "the disk of the box is full", by_name["disk_full"].advice)
    shown = root.line if root else raised.end_message(lines)
    return Explanation(plain, _evidence(shown) if shown else None, None)


def _is_the_cause(signature: Signature, root: Optional[raised.Raised], lines: List[str], at: int) -> bool:
    """Whether a lost connection or a time-out is why the run ended, and not a message of a lost rank's peers or an earlier warning."""
    if root is None or signature.pattern.search(root.line) or raised.CONSEQUENCE.search(root.line):
        return True
    return not raised.is_launched(lines, raised.find(lines)) and raised.belongs(lines, at, root)


def meaningful_lines(text: str) -> List[str]:
    """The last lines that have letters or digits, without escape sequences and without text that a progress bar overwrote."""
    lines = []
    for line in text.split("\n")[-TAIL_LINES:]:
        shown = ESCAPES.sub("", line.rstrip("\r").rpartition("\r")[2])[:MAX_LINE].rstrip()
        if not DECORATION.fullmatch(shown):
            lines.append(shown)
    return lines


def tail(path: str) -> str:
    """The end of a log, as text; "" where it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read(TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _evidence(line: str) -> str:
    return redact(line.strip())[:MAX_EVIDENCE]
