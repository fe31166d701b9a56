"""Predictions on their way: what is on disk survives a kill at any moment, and is not predicted again.

    .predictions.jsonl.unfinished/     beside predictions.jsonl, until that is complete
      about.json                       what is predicted: another target, input or setting is another prediction
      rows-0.jsonl                     rank 0's rows, whole windows one after the other
      windows-0.jsonl                  a line for each window whose rows are on disk; written after them
      lock

What stands in rows-0.jsonl after the last window of windows-0.jsonl was torn off, and is cut off again. A later attempt may have another
number of ranks: a window is done whichever rank wrote it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO

from remote_payload.train.errors import InputError
from remote_payload.train.files import read_json_object, sync_folder, write_json

ORPHANED = 10.0


@dataclass(frozen=True)
class Done:
    """A window on disk: its number, its rows, and where they are. Of the rows: ``bad`` could not be predicted, of ``cut`` ones the text
    was longer than the model takes; ``counts`` is how often each class was predicted."""

    window: int
    rows: int
    bytes: int
    bad: int = 0
    cut: int = 0
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Totals:
    """The same over all windows."""

    rows: int
    bad: int
    cut: int
    counts: dict[str, int]


class Unfinished:
    """The folder of one output. One process on one machine writes for each rank."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.with_name(f".{output.name}.unfinished")

    @contextmanager
    def begun(self, about: dict[str, Any]) -> Iterator[None]:
        """Makes the folder, or takes over one that was left; inside, it is this process's own.

        Raises InputError where an output of that name exists, where the folder is of another prediction, or where another process writes
        there.
        """
        if self.output.exists():
            raise InputError(f"{self.output} is there already; it is not overwritten. Give another name, or remove it")
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "w") as lock:
            if not _locked(lock):
                raise InputError(f"another process is writing {self.output}")
            self._check(about)
            yield

    def _check(self, about: dict[str, Any]) -> None:
        file = self.folder / "about.json"
        if not file.is_file():
            return write_json(file, about)
        before = read_json_object(file)
        if different := [name for name in {**before, **about} if before.get(name) != about.get(name)]:
            raise InputError(
                f"{self.output} was begun with another {' and '.join(different)}, so it cannot be gone on with. To begin "
                f"again: rm -r {self.folder}"
            )

    def parts(self) -> dict[Path, list[Done]]:
        """The files of rows, each with its windows in the order that they have in it. Raises InputError for a damaged journal."""
        return {
            path.with_name(path.name.replace("windows-", "rows-", 1)): _read_journal(path)
            for path in sorted(self.folder.glob("windows-*.jsonl"))
        }

    def done(self) -> dict[int, Done]:
        """The windows that are on disk, by number."""
        return {each.window: each for listed in self.parts().values() for each in listed}

    def totals(self) -> Totals:
        """What has been predicted so far."""
        done = self.done().values()
        counts = sum((Counter(each.counts) for each in done), Counter[str]())
        return Totals(
            sum(each.rows for each in done),
            sum(each.bad for each in done),
            sum(each.cut for each in done),
            dict(counts),
        )

    def in_order(self) -> Iterator[bytes]:
        """The rows of all windows in order, as JSON Lines, a window at a time. Raises InputError where a window is missing."""
        parts = self.parts()
        places: dict[int, tuple[Path, int, int]] = {}
        for path, listed in parts.items():
            at = 0
            for each in listed:
                places[each.window] = (path, at, each.bytes)
                at += each.bytes
        if sorted(places) != list(range(len(places))):
            raise InputError(f"{self.folder}: windows are missing; remove the folder to begin again")
        opened = {path: open(path, "rb") for path in parts}  # noqa: SIM115
        try:
            for number in range(len(places)):
                path, at, size = places[number]
                opened[path].seek(at)
                yield opened[path].read(size)
        finally:
            for file in opened.values():
                file.close()

    def single(self) -> Path | None:
        """The file that has all rows in order, where there is one: that of a single rank."""
        parts = self.parts()
        path, listed = next(iter(parts.items()), (None, []))
        in_order = [each.window for each in listed] == list(range(len(listed)))
        return path if len(parts) == 1 and in_order else None

    def finish(self, made: Path) -> None:
        """Gives the complete file ``made`` (in the folder) the output's name, and removes the folder."""
        with made.open("rb") as file:
            os.fsync(file.fileno())
        made.rename(self.output)
        sync_folder(self.output.parent)
        shutil.rmtree(self.folder, ignore_errors=True)


class PartWriter:
    """Appends the windows of one rank. Each is on disk when ``add`` returns."""

    def __init__(self, folder: Path, rank: int) -> None:
        journal = folder / f"windows-{rank}.jsonl"
        listed = _read_journal(journal) if journal.is_file() else []
        self._rows = _cut(folder / f"rows-{rank}.jsonl", sum(each.bytes for each in listed))
        self._journal = _cut(journal, sum(len(_line(each)) for each in listed))

    def add(self, done: Done, lines: bytes) -> None:
        """Writes the rows, then that they are there. Raises OSError when the disk is full."""
        for file, data in ((self._rows, lines), (self._journal, _line(done))):
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Closes both files."""
        self._rows.close()
        self._journal.close()


def _locked(file: IO[str]) -> bool:
    """Whether the lock was had in ORPHANED seconds: a process whose command was killed ends when it next says how far it is."""
    ends = time.monotonic() + ORPHANED
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > ends:
                return False
            time.sleep(0.2)


def _cut(path: Path, size: int) -> BinaryIO:
    """The file, open at its end, after all that follows ``size`` bytes was cut off."""
    file = path.open("ab")
    if file.tell() < size:
        raise InputError(f"{path}: {file.tell()} bytes, where {size} were written; remove {path.parent} to begin again")
    file.truncate(size)
    return file


def _line(done: Done) -> bytes:
    return json.dumps(asdict(done)).encode() + b"\n"


def _read_journal(path: Path) -> list[Done]:
    """The windows of a journal; a last line that was torn off is none."""
    try:
        return [
            Done(**json.loads(line)) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")
        ]
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); remove {path.parent} to begin again") from None
