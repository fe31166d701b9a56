"""What a repository holds already, and how that differs from what is to be published."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from remote_payload.publish.contents import Contents, PublishedFile

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PIECE = 4 << 20
# Files that decide what a library loads. Where the repository has one that is published no more, it would hold two models at once.
DECIDING = ("*.safetensors", "*.safetensors.index.json", "*.bin", "config.json", "adapter_config.json", "gpurun.json")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: by sha256 where it is a large one, else by git's name for its content."""

    size: int
    git: str
    sha256: str | None


@dataclass(frozen=True)
class Remote:
    """A repository as it is now; ``commit`` is that of its main branch."""

    commit: str | None
    private: bool
    files: dict[str, RemoteFile]


@dataclass(frozen=True)
class Comparison:
    """Paths by what would happen to them. ``stale`` are there, decide what is loaded, and are published no more."""

    new: tuple[str, ...]
    same: tuple[str, ...]
    differing: tuple[str, ...]
    stale: tuple[str, ...]

    @property
    def conflicts(self) -> tuple[str, ...]:
        """What somebody else published there, or you did before."""
        return self.differing + self.stale

    def state(self, path: str) -> str:
        """``new``, ``same`` or ``differs``."""
        return "new" if path in self.new else "same" if path in self.same else "differs"


def look(api: HfApi, name: str, token: str | None) -> Remote | None:
    """The repository; None where there is none that this token can see. Raises the client's errors."""
    from huggingface_hub import RepoFile
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.model_info(name, token=token or False)
    except RepositoryNotFoundError:
        return None
    files = {}
    for entry in api.list_repo_tree(name, recursive=True, revision=info.sha, token=token or False):
        if isinstance(entry, RepoFile):
            files[entry.path] = RemoteFile(entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
    return Remote(info.sha, bool(info.private), files)


def compare(contents: Contents, remote: Remote | None) -> Comparison:
    """Reads every file that is there already with the same size."""
    there = remote.files if remote else {}
    new: list[str] = []
    same: list[str] = []
    differing: list[str] = []
    for file in contents.files:
        other = there.get(file.path)
        (new if other is None else same if _is_same(file, other) else differing).append(file.path)
    ours = {file.path for file in contents.files}
    stale = [
        path for path in there if path not in ours and "/" not in path and any(fnmatch(path, each) for each in DECIDING)
    ]
    return Comparison(tuple(new), tuple(same), tuple(differing), tuple(sorted(stale)))


def _is_same(file: PublishedFile, other: RemoteFile) -> bool:
    if file.size != other.size:
        return False
    digest = hashlib.sha256() if other.sha256 else hashlib.sha1(b"blob %d\0" % file.size)
    if file.content is not None:
        digest.update(file.content)
    elif file.source is not None:
        with file.source.open("rb") as opened:
            while piece := opened.read(PIECE):
                digest.update(piece)
    return digest.hexdigest() == (other.sha256 or other.git)
