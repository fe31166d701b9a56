"""Folders that say themselves what they hold: their ``manifest.json`` is written last, and the folder is renamed into place."""

from __future__ import annotations

import os
import posixpath
from typing import Any, Dict, List

from remote_payload.agent.box.files import read_json


def complete_folders(outputs: str, found: Dict[str, os.stat_result]) -> List[str]:
    """The folders that are complete by their own manifest.json."""
    folders = []
    for path in found:
        if posixpath.basename(path) == "manifest.json":
            folder = posixpath.dirname(path)
            listed = read_json(os.path.join(outputs, path))
            if listed is not None and _all_there(folder, listed, found):
                folders.append(folder)
    return sorted(folders)


def _all_there(folder: str, listed: Dict[str, Any], found: Dict[str, os.stat_result]) -> bool:
    items = listed.get("files")
    if not isinstance(items, list):
        return False  # another program's manifest.json
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("path"), str):
            return False
        status = found.get(posixpath.join(folder, item["path"]))
        if status is None or status.st_size != item.get("size"):
            return False
    return True


def is_inside(path: str, folders: List[str]) -> bool:
    """Whether a path lies in one of the folders."""
    return any(not folder or path.startswith(folder + "/") for folder in folders)
