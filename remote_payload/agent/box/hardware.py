"""The machine while a run is on it: GPUs by NVML, processors, memory, disk. Cheap enough for every few seconds."""

import os
import time
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from remote_payload.agent.box import bounded, cgroup

if TYPE_CHECKING:
    from remote_payload.agent.wire.box_facts import DiskSpace, GpuSample, HardwareSample, Ram

NVML_LIMIT = 2.0  # seconds; a healthy driver answers in milliseconds


class Sampler:
    """Keeps what the next sample needs: processor time so far, and a call to NVML that has not returned."""

    def __init__(self) -> None:
        self._cpu: Optional[Tuple[float, float]] = None
        self._nvml: Optional[bounded.Call[List["GpuSample"]]] = None

    def sample(self, folder: str = "/") -> "HardwareSample":
        """``{gpus: [{index, temperature, power, utilisation, memory_used, memory_total}], cpu, cpus, ram, disk}``.

        Degrees Celsius, watts, per cent, bytes; ``cpu`` in per cent of the ``cpus`` we may use, since the last sample;
        ``disk`` is that of ``folder``. None (or ``gpus: None``) for a value that is unknown, or not known in time.
        """
        count = cpus()
        before, self._cpu = self._cpu, _cpu_times()
        busy, elapsed = (self._cpu[0] - before[0], self._cpu[1] - before[1]) if before else (0.0, 0.0)
        return {
            "gpus": self._gpus(),
            "cpu": round(min(100.0, max(0.0, 100 * busy / elapsed / count)), 1) if elapsed else None,
            "cpus": count,
            "ram": ram(),
            "disk": _disk(folder),
        }

    def _gpus(self) -> "Optional[List[GpuSample]]":
        if self._nvml is not None and self._nvml.running:
            return None  # still hanging: a second thread would hang too
        self._nvml = bounded.Call(read_gpus)
        try:
            return self._nvml.result(NVML_LIMIT)
        except Exception:
            return None


def read_gpus() -> "List[GpuSample]":
    """Every GPU's state from NVML; an empty list where there is no driver. May hang with the driver."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    return [_read_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]


def _read_gpu(nvml: Any, index: int) -> "GpuSample":
    def query(name: str, *arguments: Any) -> Any:
        try:
            return getattr(nvml, name)(handle, *arguments)
        except nvml.NVMLError:
            return None  # not every GPU reports everything (no power on some laptops, no memory on unified ones)

    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    power = query("nvmlDeviceGetPowerUsage")
    load = query("nvmlDeviceGetUtilizationRates")
    memory = query("nvmlDeviceGetMemoryInfo")
    return {
        "index": index,
        "temperature": query("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
        "power": round(power / 1000, 1) if power is not None else None,
        "utilisation": int(load.gpu) if load is not None else None,
        "memory_used": int(memory.used) if memory is not None else None,
        "memory_total": int(memory.total) if memory is not None else None,
    }


def cpus() -> int:
    """Processors we may use: by affinity, or fewer by the container's quota (at least 1)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup.cpu_quota()
    return max(1, min(allowed, round(quota))) if quota else allowed


def ram() -> "Ram":
    """``{used, total}`` in bytes, of the container where it is limited, else of the machine."""
    machine = _meminfo()
    total, available = machine.get("MemTotal"), machine.get("MemAvailable")
    group = cgroup.memory()
    if group is not None and group[1] is not None and (total is None or group[1] < total):
        return {"used": group[0], "total": group[1]}
    return {"used": total - available if total and available is not None else None, "total": total}


def ram_free() -> Optional[int]:
    """Bytes that a new process could use: what the container's limit leaves, at most what the machine has; None where it is unknown."""
    available, own = _meminfo().get("MemAvailable"), ram()
    left = own["total"] - own["used"] if own["total"] is not None and own["used"] is not None else None
    known = [value for value in (available, left) if value is not None]
    return max(min(known), 0) if known else None


def _meminfo() -> Dict[str, int]:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = [line.split() for line in file]
    except OSError:
        return {}
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) > 1 and words[1].isdigit()}


def _disk(folder: str) -> "Optional[DiskSpace]":
    try:
        space = os.statvfs(folder)
    except OSError:
        return None
    return {"free": space.f_bavail * space.f_frsize, "total": space.f_blocks * space.f_frsize}


def _cpu_times() -> Tuple[float, float]:
    """Seconds of processor time used so far, by the container where its control group counts it, else by the machine; and the clock."""
    used = cgroup.cpu_seconds()
    if used is None:
        try:
            with open("/proc/stat", encoding="ascii") as file:
                ticks = [int(word) for word in file.readline().split()[1:9]]
            used = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # without idle and iowait
        except (OSError, ValueError, IndexError):
            used = 0.0
    return used, time.monotonic()


sample = Sampler().sample
