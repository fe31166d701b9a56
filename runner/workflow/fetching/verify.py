"""Every fetched byte is hashed before it gets its final name: a large file while the next ones arrive, the rest at the end."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from runner.domain.answers.manifest import Artifact
from runner.domain.errors import ChecksumMismatch
from runner.domain.progress import Stage

LARGE = 16 << 20  # bytes; a smaller file is hashed in less time than it takes to find out whether it is complete
State = tuple[int, ...]  # another one when the file was written to, whatever time it was given afterwards


class Verifier:
    """Staged files against the box's manifest. Several threads: hashlib lets go of the interpreter."""

    def __init__(self, artifacts: Sequence[Artifact], staging: Path) -> None:
        self._artifacts = artifacts
        self._staging = staging
        self._began = time.time()
        self._early: dict[str, Future[tuple[State, str]]] = {}
        self._pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))

    def __enter__(self) -> Verifier:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def begin_early(self) -> None:
        """Hashes the large files that seem complete. The result counts only if the file is unchanged at the end."""
        for artifact in self._artifacts:
            if artifact.size >= LARGE and artifact.path not in self._early and self._seems_whole(artifact):
                self._early[artifact.path] = self._pool.submit(self._hash, artifact)

    def finish(self, stage: Stage) -> None:
        """Raises ChecksumMismatch for a file that is not what the manifest says, and throws that one away."""
        done, total = 0, sum(artifact.size for artifact in self._artifacts)
        for artifact, _ in zip(self._artifacts, self._pool.map(self._verify, self._artifacts), strict=True):
            done += artifact.size
            stage.update(done=done, total=total)

    def _seems_whole(self, artifact: Artifact) -> bool:
        """rsync gives a file the time it had on the box when it has come to its end, and not before."""
        try:
            status = os.lstat(self._staging / artifact.path)
        except OSError:
            return False
        return status.st_size >= artifact.size and status.st_mtime < self._began - 1

    def _verify(self, artifact: Artifact) -> None:
        path = self._staging / artifact.path
        if path.is_symlink() or not path.is_file():
            raise ChecksumMismatch(
                f"{artifact.path} did not arrive as a regular file",
                meaning="Nothing was moved to its final name.",
                hint="Repeat gpurun fetch; if it happens again, the box no longer has what it listed.",
            )
        early = self._early.get(artifact.path)
        if early is None or early.exception() or early.result() != (_state(path), artifact.sha256):
            self._verify_now(artifact, path)
        if path.stat().st_size > artifact.size:
            os.truncate(path, artifact.size)  # a log that grew between the list and the copy

    def _verify_now(self, artifact: Artifact, path: Path) -> None:
        if self._hash(artifact)[1] != artifact.sha256:
            path.unlink()
            raise ChecksumMismatch(
                f"{artifact.path} is not what the box's manifest says (sha256 differs)",
                meaning="It was thrown away; nothing was moved to its final name, and what was fetched before is as it was.",
                hint="Repeat gpurun fetch: only this file is sent again. If it differs again, the file changed on the box.",
            )

    def _hash(self, artifact: Artifact) -> tuple[State, str]:
        """The file's state before, and what ``sha256`` gives."""
        path = self._staging / artifact.path
        return _state(path), sha256(path, artifact.size)


def sha256(path: Path, size: int) -> str:
    """Of the first ``size`` bytes (hex); empty when there are fewer."""
    digest, left = hashlib.sha256(), size
    with open(path, "rb") as file:
        while left and (chunk := file.read(min(left, 1 << 20))):
            digest.update(chunk)
            left -= len(chunk)
    return "" if left else digest.hexdigest()


def _state(path: Path) -> State:
    status = os.lstat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
