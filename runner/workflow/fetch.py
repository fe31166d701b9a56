"""Outputs home: list, stage, verify, move. Nothing half-written ever stands under its final name."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import store
from runner.domain import places
from runner.domain.errors import ArtifactError, ChecksumMismatch, ManifestMissing, TransferFailed, TransferInterrupted
from runner.domain.manifest import Artifact, LeftOut, Manifest, parse_manifest
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.domain.words import count
from runner.transport import rsync
from runner.transport.link import Link
from runner.workflow.connect import to_run

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
    missing = [artifact for artifact in manifest.files if not receipt.has(artifact)]
    if missing:
        _check_space(target, missing)
        staging = target / STAGING
        _pull(link, run, missing, staging, target, report)
        with report.stage("verify and move", "bytes") as stage:
            _settle(missing, staging, target, receipt, stage.update)
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
        answer = link.agent.call(
            "manifest", {"run_id": run.run_id}, progress=lambda value: _hashing(stage.update, value)
        )
    manifest = parse_manifest(answer)
    if not manifest.files and not manifest.complete:
        raise ManifestMissing(
            f"{run.run_id} has nothing complete to fetch yet",
            meaning="The run goes on.",
            hint="A checkpoint or model can be fetched once it is whole: gpurun status shows how far it is.",
        )
    return manifest


def _hashing(update: Any, value: dict[str, Any]) -> None:
    done, total = value.get("done"), value.get("total")
    if isinstance(done, int) and isinstance(total, int):
        update(done=done, total=total, note="hashing on the box")


@contextlib.contextmanager
def _exclusively(run: Run) -> Iterator[None]:
    with store.locked(run.run_id, "fetch") as alone:
        if not alone:
            raise ArtifactError(
                f"another gpurun on this machine is fetching {run.run_id}", hint="Wait for it, or stop it."
            )
        yield


def _check_space(target: Path, missing: list[Artifact]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    needed, free = sum(artifact.size for artifact in missing), shutil.disk_usage(target).free
    if needed > free:
        raise TransferFailed(
            f"{target} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB are to come",
            meaning="Nothing was fetched; what was fetched before is as it was.",
            hint="Free some space, or fetch elsewhere: gpurun fetch --into DIR",
        )


def _pull(link: Link, run: Run, missing: list[Artifact], staging: Path, target: Path, report: Reporter) -> None:
    total = sum(artifact.size for artifact in missing)
    if staging.is_symlink():
        raise ArtifactError(f"{staging} is a link: refusing to write through it", hint=f"Remove it: rm {staging}")
    with report.stage(f"fetch {count(len(missing), 'file')}", "bytes") as stage:
        stage.update(done=0, total=total)
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
                    progress=lambda done: stage.update(done=done),
                )
            except TransferInterrupted as error:
                if not left:
                    raise
                report.warn(f"{error.message}; going on from there")


def _settle(missing: list[Artifact], staging: Path, target: Path, receipt: Receipt, update: Any) -> None:
    """Checks every staged file against the manifest, then moves them; one that differs stops all that is not moved yet."""
    done, total = 0, sum(artifact.size for artifact in missing)
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:  # hashlib lets go of the interpreter
        for artifact, _ in zip(missing, pool.map(lambda each: _verify(each, staging), missing), strict=True):
            done += artifact.size
            update(done=done, total=total)
    for artifact in missing:
        final = target / artifact.path
        _real_folders(target, final.parent)
        os.replace(staging / artifact.path, final)
        receipt.note(artifact)
    receipt.save()


def _verify(artifact: Artifact, staging: Path) -> None:
    """A staged file must be what the manifest says. Raises ChecksumMismatch, and throws away the one that is not."""
    path = staging / artifact.path
    if path.is_symlink() or not path.is_file():
        raise ChecksumMismatch(
            f"{artifact.path} did not arrive as a regular file",
            meaning="Nothing was moved to its final name.",
            hint="Repeat gpurun fetch; if it happens again, the box no longer has what it listed.",
        )
    if _sha256(path, artifact.size) != artifact.sha256:
        path.unlink()
        raise ChecksumMismatch(
            f"{artifact.path} is not what the box's manifest says (sha256 differs)",
            meaning="It was thrown away; nothing was moved to its final name, and what was fetched before is as it was.",
            hint="Repeat gpurun fetch: only this file is sent again. If it differs again, the file changed on the box.",
        )
    if path.stat().st_size > artifact.size:
        os.truncate(path, artifact.size)  # a log that grew between the list and the copy


def _sha256(path: Path, size: int) -> str:
    """Of the first ``size`` bytes; empty when there are fewer."""
    digest, left = hashlib.sha256(), size
    with open(path, "rb") as file:
        while left and (chunk := file.read(min(left, 1 << 20))):
            digest.update(chunk)
            left -= len(chunk)
    return "" if left else digest.hexdigest()


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
