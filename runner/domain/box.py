"""What was measured on the box, checked at the door: names are cleaned, absurd numbers are refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from runner.domain.errors import HostError
from runner.domain.terminal import clean

MAX_GPUS = 64
MAX_BYTES = 1 << 60


@dataclass(frozen=True)
class Gpu:
    index: int
    name: str
    uuid: str
    memory_total: int  # bytes
    memory_used: int
    held_by: str | None  # a run of gpurun's


@dataclass(frozen=True)
class Box:
    """Facts of one probe. ``have`` says what is there already (code, data, environment, payload)."""

    root: str
    user: str
    python: str
    os: str
    in_container: bool
    cpus: int
    ram: int
    disk_free: int
    disk_total: int
    disk_writable: bool
    inodes_free: int | None
    rsync: str | None
    apt: bool
    driver: str | None
    cuda: str | None
    gpus: tuple[Gpu, ...]
    gpus_unknown: bool  # there may be GPUs, but asking for them hung or failed
    shm: int
    have: dict[str, Any] = field(default_factory=dict)
    disk_error: str | None = None  # why it takes nothing

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> Box:
        """From the agent's answer to ``probe``. Raises HostError naming the fact that makes no sense."""
        disk = _mapping(answer, "disk")
        gpus = answer.get("gpus")
        if gpus is not None and (not isinstance(gpus, list) or len(gpus) > MAX_GPUS):
            raise _absurd("gpus", gpus)
        return cls(
            root=_text(answer, "root") or "",
            user=_text(answer, "user") or "?",
            python=_text(answer, "python") or "?",
            os=_text(answer, "os") or "?",
            in_container=answer.get("in_container") is True,
            cpus=_count(answer, "cpus", 4096),
            ram=_count(answer, "ram"),
            disk_free=_count(disk, "free"),
            disk_total=_count(disk, "total"),
            disk_writable=disk.get("writable") is True,
            inodes_free=_count(disk, "inodes_free") if disk.get("inodes_free") is not None else None,
            rsync=_text(answer, "rsync"),
            apt=answer.get("apt") is True,
            driver=_text(answer, "driver"),
            cuda=_text(answer, "cuda"),
            gpus=tuple(_gpu(gpu) for gpu in gpus or ()),
            gpus_unknown=gpus is None,
            shm=_count(answer, "shm"),
            have=_mapping(answer, "have"),
            disk_error=_text(disk, "error"),
        )


def _gpu(value: Any) -> Gpu:
    if not isinstance(value, dict):
        raise _absurd("gpu", value)
    return Gpu(
        index=_count(value, "index", MAX_GPUS),
        name=_text(value, "name") or "unknown GPU",
        uuid=_text(value, "uuid") or "",
        memory_total=_count(value, "memory_total"),
        memory_used=_count(value, "memory_used"),
        held_by=_text(value, "held_by"),
    )


def _mapping(answer: dict[str, Any], name: str) -> dict[str, Any]:
    value = answer.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _absurd(name, value)
    return value


def _text(answer: dict[str, Any], name: str) -> str | None:
    value = answer.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise _absurd(name, value)
    return clean(value, 200)


def _count(answer: dict[str, Any], name: str, limit: int = MAX_BYTES) -> int:
    value = answer.get(name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= limit:
        raise _absurd(name, value)
    return int(value)


def _absurd(name: str, value: object) -> HostError:
    return HostError(
        f"the box says of itself what cannot be: {name} = {clean(repr(value), 80)}",
        meaning="Nothing was started there.",
        hint="If this repeats, do not trust this box.",
    )
