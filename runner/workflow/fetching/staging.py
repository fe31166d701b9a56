"""The staging folder of a fetch: files that are not verified yet. After an interruption the next fetch goes on with them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from runner import files
from runner.domain.answers.manifest import Artifact
from runner.domain.errors import ArtifactError

STAGING = ".gpurun-staging"
COMPARED = 64 << 10  # bytes; a smaller file is sent again in less time than its parts are compared
_SHARED_COPY = {
    "darwin": "-c",
    "linux": "--reflink=auto",
}  # cp's option for a copy that shares its blocks with the file


class Staging:
    """Below ``target``. ``files`` is the folder that rsync writes to."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._top = target / STAGING
        self._note = self._top / "begun.json"
        self.files = self._top / "outputs"
        self._begun: dict[str, object] = {}  # path → sha256 of the content of which only the beginning is here

    def open(self, missing: Sequence[Artifact]) -> None:
        """Keeps what an earlier fetch left of these files, and removes the rest. Raises ArtifactError for a link."""
        for folder in (self._top, self.files):
            refuse_link(folder)
        self._tidy({artifact.path for artifact in missing})
        before = files.read_json(self._note)
        for artifact in missing:
            staged = os.path.lexists(self.files / artifact.path)
            if before.get(artifact.path) == artifact.sha256 if staged else self._earlier(artifact) is None:
                self._begun[artifact.path] = artifact.sha256
        self.files.mkdir(parents=True, exist_ok=True)
        files.write_json(self._note, self._begun)

    def size(self) -> int:
        """Bytes that are here and need not be written again."""
        return sum(os.lstat(path).st_blocks * 512 for path in self._walk())

    def borrow(self, missing: Sequence[Artifact]) -> None:
        """Copies the earlier version of each changed file here, so that its equal parts are not sent again."""
        for artifact in missing:
            earlier, staged = self._earlier(artifact), self.files / artifact.path
            if earlier is not None and artifact.path not in self._begun and not os.path.lexists(staged):
                staged.parent.mkdir(parents=True, exist_ok=True)
                _copy(earlier, staged)

    def parts(self, missing: Sequence[Artifact]) -> tuple[list[Artifact], list[Artifact]]:
        """The files of which a beginning is here, so that only the rest is sent; and the others."""
        begun: list[Artifact] = []
        others: list[Artifact] = []
        for artifact in missing:
            going_on = artifact.path in self._begun and os.path.lexists(self.files / artifact.path)
            (begun if going_on else others).append(artifact)
        return begun, others

    def remove(self) -> None:
        shutil.rmtree(self._top, ignore_errors=True)

    def _earlier(self, artifact: Artifact) -> Path | None:
        """The earlier version under the final name, where it is large enough that comparing with it saves time."""
        path = self._target / artifact.path
        return path if not path.is_symlink() and path.is_file() and path.stat().st_size >= COMPARED else None

    def _tidy(self, wanted: set[str]) -> None:
        for path in self._walk():
            if path.is_symlink() or not path.is_file() or str(path.relative_to(self.files)) not in wanted:
                path.unlink()
        for folder, _, _ in os.walk(self._top, topdown=False):
            if not os.listdir(folder):
                os.rmdir(folder)

    def _walk(self) -> list[Path]:
        """Every file and link here."""
        found = []
        for folder, folders, names in os.walk(self.files):
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            found += [Path(folder, name) for name in [*names, *links]]
        return found


def refuse_link(folder: Path) -> None:
    """Raises ArtifactError where somebody put a link in a folder's place: what is written there would land elsewhere."""
    if folder.is_symlink():
        raise ArtifactError(f"{folder} is a link: refusing to write through it", hint=f"Remove it: rm {folder}")


def _copy(source: Path, target: Path) -> None:
    """A copy that shares the file's blocks where the disk can do that, and that may be written to."""
    how = [option for system, option in _SHARED_COPY.items() if sys.platform == system]
    if not how or subprocess.run(["cp", *how, "--", source, target], capture_output=True).returncode != 0:
        shutil.copyfile(source, target)
    os.chmod(target, 0o600)
