"""``owner.json``: the supervisor of a run, what it started and on which GPUs. Every value is checked when the file is read: it lies where
a payload or a person can damage it, and the status of the run must still be true then.
"""

import os
from typing import Any, Dict, NamedTuple, Optional, Tuple

from remote_payload.agent.box import cgroup, processes, provider
from remote_payload.agent.box.files import read_json, write_json
from remote_payload.agent.wire.fields import is_whole
from remote_payload.agent.wire.paths import RunPaths


class Payload(NamedTuple):
    """The payload's main process. ``autogroup`` is the kernel's name for the session it made: unlike a pid, none is given twice."""

    pid: int
    start: int
    autogroup: Optional[str] = None


class Owner(NamedTuple):
    """What the supervisor wrote down. A field is None or empty where the file holds nothing usable for it."""

    pid: int
    start: int
    boot_id: Optional[str] = None
    first_start: Optional[int] = None  # PID 1's
    oom_kills: Optional[int] = None  # of the container, before the payload started
    waiting: Optional[str] = None  # what for
    payload: Optional[Payload] = None
    gpus: Tuple[int, ...] = ()
    started_at: Optional[float] = None
    box_id: Optional[str] = None  # the provider's name for the box: several boxes may share a network volume


def this_process() -> Owner:
    """This process as the supervisor of a run that has not started anything yet."""
    me = processes.read(os.getpid())
    start, box_id = me.start if me else 0, provider.read_provider().box_id or None
    return Owner(os.getpid(), start, processes.boot_id(), processes.first_start(), cgroup.oom_kills(), box_id=box_id)


def write(run: RunPaths, owner: Owner) -> None:
    """Raises OSError."""
    value = dict(owner._asdict(), payload=owner.payload._asdict() if owner.payload else None)
    write_json(run.owner, {name: field for name, field in value.items() if field is not None})


def show_sign_of_life(run: RunPaths) -> None:
    """For another box that shares the volume: the file was touched a moment ago (``alive.Box.is_elsewhere``)."""
    try:
        os.utime(run.owner)
    except OSError:
        pass


def read(run: RunPaths) -> Optional[Owner]:
    """The run's owner, None where the file is missing or names no usable supervisor."""
    value = read_json(run.owner)
    return _parse(value) if value else None


def _parse(value: Dict[str, Any]) -> Optional[Owner]:
    pid, start = _whole(value.get("pid")), _whole(value.get("start"))
    if pid is None or start is None:
        return None
    gpus = value.get("gpus")
    return Owner(
        pid,
        start,
        _text(value.get("boot_id")),
        _whole(value.get("first_start")),
        _whole(value.get("oom_kills")),
        _text(value.get("waiting")),
        _payload(value.get("payload")),
        tuple(each for each in gpus if _whole(each) is not None) if isinstance(gpus, list) else (),
        _moment(value.get("started_at")),
        _text(value.get("box_id")),
    )


def _payload(value: Any) -> Optional[Payload]:
    if not isinstance(value, dict):
        return None
    pid, start = _whole(value.get("pid")), _whole(value.get("start"))
    return None if pid is None or start is None else Payload(pid, start, _text(value.get("autogroup")))


def _whole(value: Any) -> Optional[int]:
    return value if is_whole(value) and 0 <= value < 1 << 63 else None


def _text(value: Any) -> Optional[str]:
    return value if isinstance(value, str) and value else None


def _moment(value: Any) -> Optional[float]:
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e11
    return float(value) if usable else None
