"""The checkpoints of a run that ``gpurun keep`` brought home: noted in the run's folder, verified before anything relies on one.

The note says of each which files it has. It counts as home while the receipt of the fetches has every one of them, unchanged.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from runner import files
from runner.domain import places
from runner.domain.answers.manifest import Artifact, output_path
from runner.domain.answers.reading import Fields, Impossible, list_of, text, whole
from runner.domain.answers.verbs import Kept, read_kept
from runner.domain.run import Run
from runner.workflow.fetching.receipt import Receipt

NOTE = "keep.json"  # path → what the box said of the checkpoint, and its files


class Home:
    """The checkpoints of one run in the folder ``target``. A note that cannot be read says nothing: the box is asked again."""

    def __init__(self, run: Run, target: Path) -> None:
        self._file = places.run_folder(run.run_id) / NOTE
        self._target = target
        self._noted: dict[str, tuple[Kept, tuple[Artifact, ...]]] = {}
        for entry in files.read_json(self._file).values():
            with contextlib.suppress(Impossible):
                kept, artifacts = _read(entry)
                self._noted[kept.path] = kept, artifacts

    def verified(self) -> dict[str, Kept]:
        """By path those of which every file is here, unchanged since it was verified."""
        receipt = Receipt(self._target)
        return {path: kept for path, (kept, artifacts) in self._noted.items() if all(map(receipt.has, artifacts))}

    def add(self, kept: Kept, artifacts: Sequence[Artifact]) -> None:
        """Notes that a checkpoint has come home, with these files; a version of it that was here before has gone."""
        self._noted[kept.path] = kept, tuple(artifacts)
        self._save()

    def keep_only(self, wanted: set[str]) -> None:
        """Removes the other verified checkpoints from this machine. One of which a file was changed here stays as it is.

        The newest verified one has to be among ``wanted``.
        """
        receipt, others = Receipt(self._target), self.verified().keys() - wanted
        shared = {
            artifact.path for path, (_, artifacts) in self._noted.items() if path in wanted for artifact in artifacts
        }
        for path in others:
            _, artifacts = self._noted.pop(path)
            here = [artifact for artifact in artifacts if artifact.path not in shared]
            for artifact in sorted(here, key=lambda artifact: not artifact.path.endswith("/manifest.json")):
                (self._target / artifact.path).unlink(missing_ok=True)  # first what says that the others are complete
                receipt.leave(artifact)
            _remove_empty(self._target, [artifact.path for artifact in here])
        if others:
            receipt.save()
            self._save()

    def _save(self) -> None:
        noted = {
            path: {**asdict(kept), "files": [asdict(artifact) for artifact in artifacts]}
            for path, (kept, artifacts) in self._noted.items()
        }
        files.write_json(self._file, noted)


def _remove_empty(target: Path, paths: Sequence[str]) -> None:
    folders = {parent for path in paths for parent in Path(path).parents if parent.name}
    for folder in sorted(folders, key=lambda folder: len(folder.parts), reverse=True):
        with contextlib.suppress(OSError):  # it holds something else
            os.rmdir(target / folder)


def _read(entry: object) -> tuple[Kept, tuple[Artifact, ...]]:
    artifacts = Fields(entry)("files", list_of(_artifact))
    return read_kept(entry), artifacts


def _artifact(value: object) -> Artifact:
    fields = Fields(value)
    return Artifact(fields("path", output_path), fields("size", whole), fields("sha256", text))
