"""The sha256 of files that the payload has hashed while it wrote them, from the manifests inside its folders.

A checkpoint of 44 GB is not read again for the manifest of the run. What is taken over is only what shows no change since: size and time
of the last write are those that were noted, and the file's inode was not touched after the folder's manifest was written. A hash that is
wrong all the same does no harm: the laptop computes its own of what it fetched, and refuses the file.
"""

import os
import posixpath
from typing import Dict, Iterable, NamedTuple

from remote_payload.agent.box.files import read_json
from remote_payload.agent.wire.paths import SHA256


class Known(NamedTuple):
    """A file's sha256, and what its state was when that was computed."""

    sha256: str
    size: int
    mtime_ns: int
    noted_ns: int  # the time at which this was written down, by the clock of the file system

    def is_of(self, status: os.stat_result) -> bool:
        """Whether the file is still what was hashed."""
        unchanged = (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns)
        return unchanged and status.st_ctime_ns <= self.noted_ns


def hashed_by_the_payload(outputs: str, folders: Iterable[str], found: Dict[str, os.stat_result]) -> Dict[str, Known]:
    """What the manifests of complete folders (relative to ``outputs``) say about their files, by path. Anything odd is left out."""
    known = {}
    for folder in folders:
        manifest = posixpath.join(folder, "manifest.json")
        noted_ns = found[manifest].st_mtime_ns
        for item in (read_json(os.path.join(outputs, manifest)) or {}).get("files") or ():
            size, mtime_ns, sha256 = item.get("size"), item.get("mtime_ns"), item.get("sha256")
            if (
                isinstance(size, int)
                and isinstance(mtime_ns, int)
                and isinstance(sha256, str)
                and SHA256.fullmatch(sha256)
            ):
                known[posixpath.join(folder, item["path"])] = Known(sha256, size, mtime_ns, noted_ns)
    return known
