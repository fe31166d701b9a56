"""Which files of a folder a fetch has verified: unchanged ones are not sent or hashed again, and no other file is overwritten."""

from __future__ import annotations

import os
from pathlib import Path

from runner import files
from runner.domain.answers.manifest import Artifact
from runner.workflow.fetching.staging import STAGING, refuse_link

RECEIPT = ".gpurun-fetched.json"  # path → size, mtime, sha256; and COMING until the file is moved there, or LEFT
COMING = "coming"
LEFT = "left"  # a rule left the file of that sha256 on the box (`gpurun keep --checkpoints`), or removed it here


class Receipt:
    """The receipt of the folder ``target``. What cannot be read of it says nothing."""

    def __init__(self, target: Path) -> None:
        self._target = target
        entries = files.read_json(target / RECEIPT)
        self._entries = {path: entry for path, entry in entries.items() if isinstance(entry, list)}

    def has(self, artifact: Artifact) -> bool:
        """Whether the file is here, verified and unchanged since."""
        verified = [*_state(self._path(artifact)), artifact.sha256]
        entry = self._entries.get(artifact.path, [])
        return entry[:3] == verified and LEFT not in entry

    def is_left(self, artifact: Artifact) -> bool:
        """Whether the user's rule is that this file need not be here."""
        return self._entries.get(artifact.path) == _left(artifact)

    def leave(self, artifact: Artifact) -> None:
        """Notes that the user's rule left the file on the box."""
        self._entries[artifact.path] = _left(artifact)

    def may_replace(self, artifact: Artifact) -> bool:
        """Whether a fetch may write under this name: there is no file, or one that a fetch has put there."""
        path, entry = self._path(artifact), self._entries.get(artifact.path)
        if not os.path.lexists(path):
            return True
        if entry is None or LEFT in entry or (path.is_dir() and not path.is_symlink()):
            return False
        return COMING not in entry or entry[:2] == _state(path)

    def expect(self, artifact: Artifact, staged: Path) -> None:
        """The staged file is about to be moved here, which changes neither its size nor its time."""
        if LEFT in self._entries.setdefault(artifact.path, [LEFT]):
            self._entries[artifact.path] = [*_state(staged), artifact.sha256, COMING]

    def note(self, artifact: Artifact) -> None:
        """Notes that the file is here and verified."""
        self._entries[artifact.path] = [*_state(self._path(artifact)), artifact.sha256]

    def save(self) -> None:
        """Replaces the receipt. Killed meanwhile, it leaves its unfinished file among the staged ones, which the next fetch removes."""
        scratch = self._target / STAGING
        refuse_link(scratch)
        files.write_json(self._target / RECEIPT, self._entries, scratch)

    def verified(self) -> dict[str, str]:
        """The sha256 of every file that is here and unchanged since it was verified, by path; also of those that a fetch had moved here
        when it was killed."""
        found = {}
        for path, entry in self._entries.items():
            if (
                len(entry) >= 3
                and LEFT not in entry
                and isinstance(entry[0], int)
                and entry[:2] == _state(self._target / path)
            ):
                found[path] = str(entry[2])
        return found

    def unsure(self) -> set[str]:
        """The paths that are noted and not here as they were verified: a fetch was stopped while it moved them, or they were changed."""
        return self._entries.keys() - self.verified().keys()

    def _path(self, artifact: Artifact) -> Path:
        return self._target / artifact.path


def _left(artifact: Artifact) -> list[object]:
    return [None, None, artifact.sha256, LEFT]


def _state(path: Path) -> list[object]:
    try:
        status = os.lstat(path)
    except OSError:
        return [None, None]
    return [status.st_size, status.st_mtime_ns]
