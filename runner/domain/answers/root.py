"""Readers of ``$ROOT`` and of folders below it."""

from __future__ import annotations

import posixpath

from remote_payload.agent.wire.paths import ROOT_NAME, SAFE_PATH
from runner.domain.answers.reading import Impossible, Reader, matching, shown


def box_root(value: object) -> str:
    """``$ROOT``: the one folder that gpurun works in, in its normal form, so that no path below it leads elsewhere. Raises Impossible."""
    root = matching(SAFE_PATH)(value)
    if not root.startswith("/") or posixpath.normpath(root) != root or posixpath.basename(root) != ROOT_NAME:
        raise Impossible(f"{shown(root)} is not a folder of gpurun")
    return root


def folder_below(root: str) -> Reader[str]:
    """Reads the path of a folder below ``root``, in its normal form."""

    def read(value: object) -> str:
        folder = matching(SAFE_PATH)(value)
        if not folder.startswith(root + "/") or posixpath.normpath(folder) != folder:
            raise Impossible(f"{shown(folder)} is not below {root}")
        return folder

    return read
