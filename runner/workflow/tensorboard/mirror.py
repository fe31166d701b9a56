"""The logs of runs as TensorBoard reads them: a folder for each run under its name, whose files grow in place.

TensorBoard keeps each file open and reads on at its end. A file that comes home is put in the place of the one before, so TensorBoard
would never see it. Therefore it has copies of its own, to which only the new bytes are added.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from runner.domain import places
from runner.domain.run import Run
from runner.files import trouble
from runner.workflow.fetching.staging import STAGING

State = tuple[int, int, int]  # inode, size, time of change (ns): another one when the file was changed or replaced
PIECE = 1 << 20  # bytes


def is_event_file(path: str) -> bool:
    """Whether TensorBoard reads a file of this name."""
    return "tfevents" in path.rpartition("/")[2]


def logs_here(run: Run) -> Path:
    """The folder that the logs of a run come home to while it trains; what ``gpurun fetch`` has brought lies among its outputs."""
    return places.run_folder(run.run_id) / "tensorboard"


class Mirror:
    """The copies, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken: dict[Path, State] = {}  # by copy, the state of the file that it was last compared with
        self._beside = folder.with_name("coming")

    @property
    def is_empty(self) -> bool:
        return not self._taken

    def update(self, runs: Sequence[Run]) -> None:
        """Takes over what has come since. Raises DiskTrouble."""
        for run in runs:
            for path, source in _event_files(run).items():
                self._take(source, self._folder / _shown(run, path))

    def _take(self, source: Path, copy: Path) -> None:
        try:
            about = os.stat(source)
            state = about.st_ino, about.st_size, about.st_mtime_ns
            if self._taken.get(copy) == state:
                return
            if copy.exists() and _begins_with(source, copy):
                _append(source, copy)
            else:
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, self._beside)
                os.replace(self._beside, copy)
        except FileNotFoundError:
            return  # a newer version takes its place at this moment
        except OSError as error:
            raise trouble(error, copy) from None
        self._taken[copy] = state


def _append(source: Path, copy: Path) -> None:
    """Adds what the source has more than the copy."""
    with open(source, "rb") as new, open(copy, "ab") as known:
        new.seek(known.tell())
        shutil.copyfileobj(new, known, PIECE)


def _event_files(run: Run) -> dict[str, Path]:
    """The event files of a run on this machine by their paths among its outputs; of two versions the longer one."""
    found: dict[str, tuple[int, Path]] = {}
    for top in (run.outputs_here, logs_here(run)):
        for path, file, size in _walk(top):
            if path not in found or size > found[path][0]:
                found[path] = size, file
    return {path: file for path, (_, file) in sorted(found.items())}


def _walk(top: Path) -> Iterator[tuple[str, Path, int]]:
    """Path below ``top``, file and size of each event file; no link is followed."""
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if name != STAGING]
        for name in filter(is_event_file, names):
            file = Path(folder, name)
            try:
                about = os.lstat(file)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(about.st_mode):
                yield file.relative_to(top).as_posix(), file, about.st_size


def _shown(run: Run, path: str) -> str:
    """Where the copy of a file is: TensorBoard calls each curve by the folder of its file. A recipe's are in ``logs/<run id>``."""
    folder, _, name = path.rpartition("/")
    inside = f"{folder}/".removeprefix("logs/").removeprefix(f"{run.run_id}/").rstrip("/")
    return "/".join(part for part in (run.run_id, inside, name) if part)


def _begins_with(file: Path, beginning: Path) -> bool:
    """Whether ``file`` has the bytes of ``beginning`` at its beginning."""
    with open(file, "rb") as whole, open(beginning, "rb") as known:
        while piece := known.read(PIECE):
            if whole.read(len(piece)) != piece:
                return False
    return True
