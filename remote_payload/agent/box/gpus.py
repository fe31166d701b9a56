"""Which GPUs there are: from NVML, else from nvidia-smi. Bounded in time, since both hang with a broken driver."""

import json
import os
import subprocess
from typing import Any, Dict, List, NamedTuple, Optional

from remote_payload.agent.box import bounded

NVML_LIMIT = 10.0  # seconds; loading the driver's library takes one or two on boxes with eight GPUs
SMI_LIMIT = 15.0
MAX_GPUS = 64
STAND_IN = "GPURUN_FAKE_GPUS"
SMI_FIELDS = "index,uuid,name,memory.total,memory.used,utilization.gpu"


class Gpu(NamedTuple):
    """One GPU as the container sees it; memory in bytes, ``utilisation`` in per cent (None where the driver does not report it)."""

    number: int
    uuid: str
    name: str
    memory_total: int
    memory_used: int
    utilisation: Optional[int]


def list_gpus() -> Optional[List[Gpu]]:
    """Every GPU in NVML's order (that of the PCI bus); empty without a driver, None when the driver does not answer in time."""
    for path in stand_in().values():
        with open(path, encoding="utf-8") as file:
            return [Gpu(**fields) for fields in json.load(file)]
    try:
        return bounded.Call(_from_nvml).result(NVML_LIMIT)[:MAX_GPUS]
    except TimeoutError:
        return None
    except Exception:  # no pynvml, no library, a library older than its driver: nvidia-smi may still know
        return _from_smi()


def stand_in() -> Dict[str, str]:
    """For tests where there is no GPU: the variable that names a JSON file of Gpu fields."""
    return {name: os.environ[name] for name in (STAND_IN,) if os.environ.get(name)}


def _from_nvml() -> List[Gpu]:
    import pynvml

    pynvml.nvmlInit()
    found = []
    for index in range(min(pynvml.nvmlDeviceGetCount(), MAX_GPUS)):
        try:
            found.append(_gpu(pynvml, index))
        except pynvml.NVMLError_GpuIsLost:  # it fell off the bus; the others work
            continue
    return found


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        total, used = int(memory.total), int(memory.used)
    except nvml.NVMLError:
        total, used = 0, 0  # unified memory: the GPU has none of its own
    try:
        utilisation: Optional[int] = int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    except nvml.NVMLError:
        utilisation = None
    return Gpu(
        index, _text(nvml.nvmlDeviceGetUUID(handle)), _text(nvml.nvmlDeviceGetName(handle)), total, used, utilisation
    )


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _from_smi() -> Optional[List[Gpu]]:
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=" + SMI_FIELDS, "--format=csv,noheader,nounits"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SMI_LIMIT,
        )
    except subprocess.TimeoutExpired:
        return None
    except OSError:
        return []
    return parse_smi(answer.stdout.decode("utf-8", "replace")) if answer.returncode == 0 else []


def parse_smi(text: str) -> List[Gpu]:
    """nvidia-smi's CSV (MiB, per cent, "[N/A]") as GPUs; lines of another form are skipped."""
    found = []
    for line in text.splitlines()[:MAX_GPUS]:
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 6 and fields[0].isdigit():
            total, used, load = (int(field) if field.isdigit() else None for field in fields[3:])
            found.append(Gpu(int(fields[0]), fields[1], fields[2], (total or 0) << 20, (used or 0) << 20, load))
    return found
