"""What gpurun itself knows of a run, among its outputs: the log, and the samples of the hardware as a table.

They come into the output ``logs``, where the job has it: a recipe's run unless ``outputs`` leaves it out, a command's where
``outputs`` names it. A command's own file that has one of the two names stays as it is.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import time
from typing import Any, Dict, Iterator, List, Optional

from remote_payload.agent.box.files import read_json, remove_quietly
from remote_payload.agent.run.events import MAX_EVENT
from remote_payload.agent.wire.paths import RunPaths

FOLDER = "logs"
LOG, HARDWARE = "run.log", "hardware.csv"
OF_THE_BOX = ("cpu_percent", "cpus", "ram_used", "ram_total", "disk_free", "disk_total")
OF_A_GPU = ("index", "utilisation", "memory_used", "memory_total", "temperature", "power")  # as an event has them
COLUMNS = ("time", "seconds", *OF_THE_BOX, *("gpu" if name == "index" else "gpu_" + name for name in OF_A_GPU))


def add(run: RunPaths) -> None:
    """Adds ``logs/run.log`` and ``logs/hardware.csv`` to the outputs of a run that is over. On a full disk they are left out."""
    job = read_json(run.job) or {}
    if not _wanted(job):
        return
    folder = os.path.join(run.outputs, FOLDER)
    for name, write in ((LOG, _write_log), (HARDWARE, _write_hardware)):
        final, unfinished = os.path.join(folder, name), os.path.join(folder, name + ".tmp")
        try:
            os.makedirs(folder, exist_ok=True)
            if (job.get("recipe") or not os.path.lexists(final)) and write(run, unfinished):
                os.rename(unfinished, final)
        except OSError:
            pass
        finally:
            remove_quietly(unfinished)  # it stays where both are names of one file: rename(2) then does nothing


def _wanted(job: Dict[str, Any]) -> bool:
    names = job.get("outputs")
    if not isinstance(names, list):
        return bool(job.get("recipe"))
    return FOLDER in [str(name).rstrip("/") for name in names]


def _write_log(run: RunPaths, path: str) -> bool:
    """The log byte for byte, which takes no space where it can be another name of it. Of one whose beginning was freed, the rest, under a
    line that says so.
    """
    with open(run.log, "rb") as log:
        begin = _first_data(log.fileno())
        if not begin:
            remove_quietly(path)
            try:
                os.link(run.log, path)
            except OSError:  # no hard links on this filesystem
                shutil.copyfile(run.log, path)
            return True
        log.seek(begin)
        with open(path, "wb") as file:
            file.write(b"[gpurun: %d bytes of the log were dropped on the box to keep its disk free]\n" % begin)
            shutil.copyfileobj(log, file, 1 << 20)
    return True


def _first_data(descriptor: int) -> int:
    """Where the log begins: what was before is a hole that the log quota has made."""
    try:
        return os.lseek(descriptor, 0, os.SEEK_DATA)
    except OSError as error:
        return os.fstat(descriptor).st_size if error.errno == errno.ENXIO else 0
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)


def _write_hardware(run: RunPaths, path: str) -> bool:
    """One row for each sample and each GPU; a sample without GPUs has one row. False where there was no sample."""
    first: Optional[float] = None
    with open(path, "w", encoding="ascii", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for sample in _samples(run.events):
            first = sample["t"] if first is None else first
            table.writerows(_rows(sample, first))
    if first is None:
        remove_quietly(path)
    return first is not None


def _samples(events: str) -> Iterator[Dict[str, Any]]:
    with open(events, "rb") as file:
        for line in iter(lambda: file.readline(MAX_EVENT + 1), b""):
            if b'"hardware"' in line:
                try:
                    event = json.loads(line.decode("utf-8"))
                except (ValueError, RecursionError):
                    continue
                if isinstance(event, dict) and event.get("type") == "hardware" and _is_number(event.get("t")):
                    yield event


def _rows(sample: Dict[str, Any], first: float) -> Iterator[List[Any]]:
    ram, disk, gpus = _mapping(sample.get("ram")), _mapping(sample.get("disk")), sample.get("gpus")
    box = (
        sample.get("cpu"),
        sample.get("cpus"),
        ram.get("used"),
        ram.get("total"),
        disk.get("free"),
        disk.get("total"),
    )
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(sample["t"]))
    for gpu in (gpus if isinstance(gpus, list) else []) or [{}]:
        values = (*box, *(_mapping(gpu).get(name) for name in OF_A_GPU))
        yield [moment, round(sample["t"] - first, 1), *(value if _is_number(value) else "" for value in values)]


def _mapping(value: Any) -> Dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e18
