"""Outputs home: list, stage, verify, move. Nothing half-written ever stands under its final name."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import store
from runner.domain import places
from runner.domain.errors import ArtifactError, ManifestMissing, TransferFailed, TransferInterrupted
from runner.domain.manifest import Artifact, LeftOut, Manifest
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.domain.words import count
from runner.transport import rsync
from runner.transport.link import Link
from runner.workflow.connect import to_run
from runner.workflow.verify import Verifier, sha256

STAGING = ".gpurun-staging"
RECEIPT = ".gpurun-fetched.json"  # what was verified here: path → size, mtime, sha256
TRIES = 3


@dataclass(frozen=True)
class Fetched:
    """What a fetch did: where to, what is new, what was here already, what the box never sends, and whether the run is over."""

    into: Path
    new: tuple[Artifact, ...]
    kept: int
    complete: bool
    left_out: tuple[LeftOut, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(artifact.size for artifact in self.new)


def fetch(run: Run, report: Reporter, *, into: Path | None = None) -> Fetched:
    """Brings a run's outputs home while or after it trains. Raises ManifestMissing, TransferErrors, ChecksumMismatch."""
    target = destination(run, into)
    with to_run(run, report) as link, _exclusively(run):
        return fetch_over(link, run, target, report)


def fetch_over(link: Link, run: Run, target: Path, report: Reporter) -> Fetched:
    """The same over a link that is there already."""
    manifest = ask_manifest(link, run, report)
    receipt = Receipt(target)
    missing = _not_here([artifact for artifact in manifest.files if not receipt.has(artifact)], target, receipt)
    if missing:
        _check_space(target, missing)
        staging = target / STAGING
        with Verifier(missing, staging) as verifier:
            _pull(link, run, missing, staging, target, report, verifier.begin_early)
            with report.stage("verify and move", "bytes") as stage:
                verifier.finish(stage.update)
                _settle(missing, staging, target, receipt)
        shutil.rmtree(staging, ignore_errors=True)
    store.update(run, fetched_into=str(target), fetched_at=time.time() if manifest.complete else None)
    return Fetched(target, tuple(missing), len(manifest.files) - len(missing), manifest.complete, manifest.left_out)


def destination(run: Run, into: Path | None) -> Path:
    """Where the outputs go: what was asked for, else where they went before, else the run's own folder."""
    if into is not None:
        return into.expanduser().absolute()
    return Path(run.fetched_into) if run.fetched_into else places.run_folder(run.run_id) / "outputs"


def ask_manifest(link: Link, run: Run, report: Reporter) -> Manifest:
    """What the box has of this run. Raises ManifestMissing while there is nothing."""
    with report.stage("ask for the manifest", "bytes") as stage:
        manifest = link.agent.manifest(
            run.run_id, lambda done, total: stage.update(done=done, total=total, note="hashing on the box")
        )
    if not manifest.files and not manifest.complete:
        raise ManifestMissing(
            f"{run.run_id} has nothing complete to fetch yet",
            meaning="The run goes on.",
            hint="A checkpoint or model can be fetched once it is whole: gpurun status shows how far it is.",
        )
    return manifest


@contextlib.contextmanager
def _exclusively(run: Run) -> Iterator[None]:
    with store.locked(run.run_id, "fetch") as alone:
        if not alone:
            raise ArtifactError(
                f"another gpurun on this machine is fetching {run.run_id}", hint="Wait for it, or stop it."
            )
        yield


def _not_here(missing: list[Artifact], target: Path, receipt: Receipt) -> list[Artifact]:
    """Without what lies here already, however it came. Raises ArtifactError where a file of the user's own is in the way."""
    left, own = [], []
    for artifact in missing:
        path = target / artifact.path
        if receipt.knows(artifact) or not os.path.lexists(path):
            left.append(artifact)
        elif _is(path, artifact):
            receipt.note(artifact)
        else:
            own.append(artifact.path)
    if own:
        raise ArtifactError(
            f"{target} has {count(len(own), 'file')} under names that the run uses too, and no fetch put them there: "
            + ", ".join(own[:5]) + (" …" if own[5:] else ""),
            meaning="Nothing was fetched; they are as they were.",
            hint="Move them away, or fetch elsewhere: gpurun fetch --into DIR",
        )  # fmt: skip
    if len(left) < len(missing):
        receipt.save()
    return left


def _is(path: Path, artifact: Artifact) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size != artifact.size:
        return False
    return sha256(path, artifact.size) == artifact.sha256


def _check_space(target: Path, missing: list[Artifact]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    needed, free = sum(artifact.size for artifact in missing), shutil.disk_usage(target).free
    if needed > free:
        raise TransferFailed(
            f"{target} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB are to come",
            meaning="Nothing was fetched; what was fetched before is as it was.",
            hint="Free some space, or fetch elsewhere: gpurun fetch --into DIR",
        )


def _pull(
    link: Link,
    run: Run,
    missing: list[Artifact],
    staging: Path,
    target: Path,
    report: Reporter,
    some_arrived: Callable[[], None],
) -> None:
    total = sum(artifact.size for artifact in missing)
    if staging.is_symlink():
        raise ArtifactError(f"{staging} is a link: refusing to write through it", hint=f"Remove it: rm {staging}")
    with report.stage(f"fetch {count(len(missing), 'file')}", "bytes") as stage:
        stage.update(done=0, total=total)

        def tell(done: int) -> None:
            stage.update(done=done)
            some_arrived()

        for left in reversed(range(TRIES)):
            try:
                return rsync.pull(
                    link.host,
                    link.paths.run(run.run_id).outputs,
                    [artifact.path for artifact in missing],
                    staging,
                    basis=target,
                    max_size=max(artifact.size for artifact in missing) + (1 << 20),
                    compress=link.slow,
                    progress=tell,
                )
            except TransferInterrupted as error:
                if not left:
                    raise
                report.warn(f"{error.message}; going on from there")


def _settle(missing: list[Artifact], staging: Path, target: Path, receipt: Receipt) -> None:
    """Moves what was verified, all of it, to its final names. Cut off in between, the next fetch knows them for its own."""
    for artifact in missing:
        receipt.expect(artifact)
    receipt.save()
    for artifact in missing:
        final = target / artifact.path
        _real_folders(target, final.parent)
        os.replace(staging / artifact.path, final)
        receipt.note(artifact)
    receipt.save()


def _real_folders(top: Path, folder: Path) -> None:
    """Makes the folders below ``top``; refuses one that somebody swapped for a link."""
    for part in reversed([folder, *folder.parents]):
        if part == top or top not in part.parents:
            continue
        if part.is_symlink():
            raise ArtifactError(f"{part} is a link: refusing to write through it", hint=f"Remove it: rm {part}")
        part.mkdir(exist_ok=True)


class Receipt:
    """What was verified here before, so that it is neither sent nor hashed again while it is untouched."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._entries: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            entries = json.loads((target / RECEIPT).read_text("utf-8"))
            self._entries = entries if isinstance(entries, dict) else {}

    def has(self, artifact: Artifact) -> bool:
        return self._entries.get(artifact.path) == [*self._state(artifact), artifact.sha256]

    def knows(self, artifact: Artifact) -> bool:
        """Whether what lies under this name, if anything, came by a fetch."""
        return artifact.path in self._entries

    def expect(self, artifact: Artifact) -> None:
        """It is about to be moved here."""
        self._entries.setdefault(artifact.path, [])

    def note(self, artifact: Artifact) -> None:
        self._entries[artifact.path] = [*self._state(artifact), artifact.sha256]

    def save(self) -> None:
        store.write_json(self._target / RECEIPT, self._entries)

    def _state(self, artifact: Artifact) -> list[int | None]:
        try:
            status = os.lstat(self._target / artifact.path)
        except OSError:
            return [None, None]
        return [status.st_size, status.st_mtime_ns]
