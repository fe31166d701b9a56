"""What the tools of GPU providers can be asked: to destroy a box, and whether it still costs money. No I/O.

The words are those of the tools' sources (vast-ai/vast-cli ``vastai/cli/commands/instances.py``, runpod/runpodctl ``cmd/pod``, autumn
2026). Neither tool's exit code proves anything: ``vastai destroy`` ends with 0 where the service refuses, and where nobody answers its
question. So the list of boxes is read afterwards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from runner.domain.host import Host

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
NUMBER = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True)
class Instance:
    """A box as its provider's tool names it. ``listing`` prints JSON of all boxes, ``details`` of this one with its addresses."""

    id: str
    listing: tuple[str, ...]
    details: tuple[str, ...]
    answer: bytes = b""  # what the destroying command reads on its standard input


@dataclass(frozen=True)
class Listed:
    """What a provider's list says of a box: whether it has it, and the state that it gives (``running``, ``exited``)."""

    there: bool
    state: str = ""

    @property
    def stopped(self) -> bool:
        """Whether it exists and does not run: its disk costs money all the same."""
        return self.there and self.state.lower() in ("exited", "stopped", "inactive", "offline")


def command_for_box(provider: str, name: str) -> tuple[str, ...] | None:
    """The command for a box that calls itself ``name`` at ``runpod`` or ``vast``; None elsewhere, and for a name that no tool may get."""
    if provider == "vast" and NUMBER.fullmatch(name):
        return ("vastai", "destroy", "instance", name)
    return ("runpodctl", "pod", "delete", name) if provider == "runpod" and ID.fullmatch(name) else None


def instance_of_command(command: tuple[str, ...]) -> Instance | None:
    """The box that a command of the user's destroys, where it is one of a tool that can also be asked; else None."""
    tool = command[0].rpartition("/")[2]
    match [word for word in command[1:] if word not in ("-y", "--yes")]:
        case ["destroy", "instance", name] if tool == "vastai" and NUMBER.fullmatch(name):
            return _vast(name, command[0])
        case ["pod", "delete" | "rm" | "remove", name] | ["remove", "pod", name] if tool == "runpodctl":
            return _runpod(name, command[0]) if ID.fullmatch(name) else None
    return None


def _vast(name: str, tool: str) -> Instance:
    # Newer ones ask "[y/N]"; older ones ask nothing and know no --yes. To answer on standard input suits both.
    listing = (tool, "show", "instances", "--raw")
    return Instance(name, listing, listing, b"y\n")


def _runpod(name: str, tool: str) -> Instance:
    listing = (tool, "pod", "list", "--all", "--output", "json")
    return Instance(name, listing, (tool, "pod", "get", name, "--output", "json"))


def find_in_list(instance: Instance, printed: str) -> Listed | None:
    """What the listing command printed of the box; None where that is no list: an error message does not say that a box is gone."""
    rows = _rows(printed)
    if rows is None:
        return None
    for row in rows:
        if str(row.get("id")) == instance.id:
            state = row.get("runtimeStatus") or row.get("actual_status") or row.get("desiredStatus") or ""
            return Listed(there=True, state=str(state))
    return Listed(there=False)


def has_address(instance: Instance, printed: str, host: Host) -> bool:
    """Whether the details that were printed name the address at which ``host`` was reached: then the id is that box's."""
    for row in _rows(printed) or _rows(f"[{printed}]") or ():
        if str(row.get("id")) == instance.id:
            named = set(_scalars(row))
            # vast.ai's proxy listens one port higher for images with Jupyter.
            return host.hostname in named and not named.isdisjoint({str(host.port), str(host.port - 1)})
    return False


def _rows(printed: str) -> list[dict[str, object]] | None:
    """The objects of a list in JSON, also of one that is called ``instances``."""
    try:
        value = json.loads(printed)
    except (ValueError, RecursionError):
        return None
    rows = value.get("instances") if isinstance(value, dict) else value
    return rows if isinstance(rows, list) and all(isinstance(row, dict) for row in rows) else None


def _scalars(value: object) -> Iterator[str]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    if inner is None:
        yield str(value)
    for each in inner or ():
        yield from _scalars(each)
