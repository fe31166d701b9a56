"""The GPUs that a job asks for and torch cannot use: such a run ends before it loads anything.

Otherwise it would train on the CPU, a hundred times as slow, while the GPUs are paid for. ``resources: {gpus: 0}`` means the CPU.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, NamedTuple

import torch

from remote_payload.train.errors import TrainingError

BUILD_ONE = "Leave out environment.interpreter: gpurun then finds or builds an environment whose torch fits the driver."
CPU_INSTEAD = "It does not train on the CPU instead; resources: {gpus: 0} would"


class Driver(NamedTuple):
    """What NVML, the driver's own library, reports: how many GPUs, and the newest CUDA that the driver runs."""

    gpus: int
    cuda: tuple[int, int]


def require_lent_gpus(job: dict[str, Any]) -> None:
    """Raises TrainingError, with the reason, when the job has GPUs and torch cannot use as many.

    gpurun lends GPUs through CUDA_VISIBLE_DEVICES. Started by hand, a job file that says nothing of GPUs may run anywhere.
    """
    if os.environ.get("GPURUN_FAKE_GPUS"):  # tests only: there is no real GPU
        return
    lent = _lent(job)
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if seen < lent:
        how = "was lent" if "GPURUN_RUN_DIR" in os.environ else "asks for"
        can_use = f"this run {how} {lent} GPU{'s' * (lent > 1)}, torch {torch.__version__} can use {seen}"
        raise TrainingError(f"{can_use}: {_reason(seen)}. {CPU_INSTEAD}")


def _lent(job: dict[str, Any]) -> int:
    """How many GPUs this run was given; by hand, how many its job file asks for (all: one at least) of those that are not hidden."""
    wanted = (job.get("resources") or {}).get("gpus")
    asked = 1 if wanted == "all" else wanted if isinstance(wanted, int) else 0
    numbers = os.environ.get("CUDA_VISIBLE_DEVICES")
    if numbers is None:
        return asked
    visible = len([number for number in numbers.split(",") if number.strip() not in ("", "-1")])
    return visible if "GPURUN_RUN_DIR" in os.environ else min(asked, visible)


def _reason(seen: int) -> str:
    """Why torch can use only ``seen`` GPUs, and what to change where that is known; without the last full stop."""
    if seen:
        return f"CUDA_VISIBLE_DEVICES is {os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}"
    if torch.version.cuda is None and torch.version.hip is None:
        return f"this torch is a CPU build (torch.version.cuda is None). {BUILD_ONE}".rstrip(".")
    says, driver = _message_of_torch(), read_driver()
    if driver is None:
        return f"{says} (NVML does not answer either: this container has no working NVIDIA driver)"
    sees = f"NVML sees {driver.gpus} GPU{'s' * (driver.gpus != 1)}"
    major = int((torch.version.cuda or "0").partition(".")[0])
    if major > driver.cuda[0]:
        runs = f"the driver runs CUDA {driver.cuda[0]}.{driver.cuda[1]}, this torch is built for {torch.version.cuda}"
        return f"{sees}, {runs}. {BUILD_ONE} Or take a box with a newer driver"
    return f"{says} ({sees} and a driver for CUDA {driver.cuda[0]}.{driver.cuda[1]}: take another box)"


def _message_of_torch() -> str:
    """Why CUDA does not start, in torch's own words, in one line."""
    try:
        torch.cuda.init()
    except Exception as error:  # an AssertionError without CUDA in torch, a RuntimeError for a driver
        message = str(error).strip()
        return message.splitlines()[0].rstrip(".") if message else type(error).__name__
    return "torch gives no reason"


def read_driver() -> Driver | None:
    """What NVML reports; None where its library is missing or answers with an error.

    https://docs.nvidia.com/deploy/nvml-api/: nvmlDeviceGetCount_v2, and nvmlSystemGetCudaDriverVersion_v2 gives 12060 for 12.6.
    """
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        count, version = ctypes.c_uint(), ctypes.c_int()
        failed = nvml.nvmlInit_v2() or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        failed = failed or nvml.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(version))
    except (OSError, AttributeError):  # no library; one too old for these functions
        return None
    return None if failed else Driver(count.value, (version.value // 1000, version.value % 1000 // 10))
