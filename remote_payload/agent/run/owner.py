"""``owner.json``: who guards a run, what it started and on which GPUs. Read with every value checked: the file lies where a payload
or a person can damage it, and what is told of the run must then still be true.
"""

from typing import Any, Dict, NamedTuple, Optional, Tuple

from remote_payload.agent.box.files import read_json
from remote_payload.agent.wire.paths import RunPaths


class Payload(NamedTuple):
    """The payload's main process. ``autogroup`` is the kernel's name for the session it made: unlike a pid, none is given twice."""

    pid: int
    start: int
    autogroup: Optional[str] = None


class Owner(NamedTuple):
    """What the supervisor wrote down; None or empty where nothing usable is said."""

    pid: Optional[int] = None
    start: Optional[int] = None
    boot_id: Optional[str] = None
    first_start: Optional[int] = None  # PID 1's
    oom_kills: Optional[int] = None
    waiting: Optional[str] = None  # what for
    payload: Optional[Payload] = None
    gpus: Tuple[int, ...] = ()
    started_at: Optional[float] = None


def read(run: RunPaths) -> Optional[Owner]:
    """The run's owner, None when there is none or nothing in the file makes sense."""
    told = read_json(run.owner)
    return parse(told) if told else None


def parse(told: Dict[str, Any]) -> Optional[Owner]:
    """An owner from JSON; None without a usable supervisor in it."""
    pid, start = _integer(told.get("pid")), _integer(told.get("start"))
    if pid is None or start is None:
        return None
    gpus = told.get("gpus")
    return Owner(
        pid,
        start,
        _text(told.get("boot_id")),
        _integer(told.get("first_start")),
        _integer(told.get("oom_kills")),
        _text(told.get("waiting")),
        _payload(told.get("payload")),
        tuple(each for each in gpus if _integer(each) is not None) if isinstance(gpus, list) else (),
        _moment(told.get("started_at")),
    )


def _payload(told: Any) -> Optional[Payload]:
    if not isinstance(told, dict):
        return None
    pid, start = _integer(told.get("pid")), _integer(told.get("start"))
    return None if pid is None or start is None else Payload(pid, start, _text(told.get("autogroup")))


def _integer(value: Any) -> Optional[int]:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63 else None


def _text(value: Any) -> Optional[str]:
    return value if isinstance(value, str) and value else None


def _moment(value: Any) -> Optional[float]:
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e11
    return float(value) if usable else None
