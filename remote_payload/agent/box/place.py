"""Where the root lies, and what it would be lost by: the fact ``place`` of the verb ``probe``."""

import os
from typing import TYPE_CHECKING, Optional

from remote_payload.agent.box import machine, provider
from remote_payload.agent.box.provider import Mount

if TYPE_CHECKING:
    from remote_payload.agent.wire.box_facts import Place

IN_MEMORY = ("tmpfs", "ramfs")


def place(root: str) -> "Place":
    """The kind of box, the disk that the root lies on, and what ends it. ``volume`` is a folder that would survive more."""
    known, mounts = provider.read_provider(), provider.read_mounts()
    kind = known.name or ("container" if machine.in_container() else "machine")
    mount = provider.mount_of(root, mounts)
    lost_by = lost_with(kind, mount)
    volume = provider.find_volume(mounts) if lost_by == "stop" else ""
    return {
        "kind": kind,
        "box_id": known.box_id or None,
        "folder": os.path.dirname(root),
        "volume": volume or None,
        "network": mount is not None and mount.is_network,
        "own_mount": mount is not None and mount.is_disk,
        "lost_by": lost_by,
    }


def lost_with(kind: str, mount: Optional[Mount]) -> str:
    """The least that deletes what lies on this mount of a box of this kind, as ``Place.lost_by``."""
    if mount is None:
        return "unknown"
    if mount.kind in IN_MEMORY:
        return "stop"
    if kind == "runpod":
        return "volume" if mount.is_network else "destroy" if mount.is_disk else "stop"
    if kind == "vast":
        return "volume" if mount.is_disk else "destroy"
    if kind == "container":
        return "unknown"
    return "volume" if mount.is_network else "destroy"
