"""``gpurun fetch``: list, stage, verify, move. A file gets its final name when it is complete and verified."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner import store
from runner.domain import places
from runner.domain.answers.manifest import Artifact, LeftOut, Manifest
from runner.domain.errors import (
    ArtifactError,
    BeingFetched,
    ChecksumMismatch,
    FilesChanged,
    ManifestMissing,
    TransferFailed,
    TransferInterrupted,
)
from runner.domain.progress import Reporter
from runner.domain.quantities import format_size, pluralise
from runner.domain.run import Run
from runner.files import file_lock_if_free
from runner.transport.link import Link
from runner.transport.transfer import rsync
from runner.workflow.connect import ReconnectingLink, host_of
from runner.workflow.fetching.chosen import only_chosen
from runner.workflow.fetching.in_the_way import in_the_way, not_here
from runner.workflow.fetching.long_names import refuse_long_names
from runner.workflow.fetching.receipt import Receipt
from runner.workflow.fetching.staging import Staging, refuse_link
from runner.workflow.fetching.verify import Verifier
from runner.workflow.reporting.write import leave_page

PAUSES = (0.5, 2.0)  # seconds before a broken copy is tried again
CHANGED = (ChecksumMismatch, FilesChanged)
LISTINGS = 3  # how often a run that goes on is asked for its files, when they change while they are copied


@dataclass(frozen=True)
class Fetched:
    """What a fetch did: where to, which files are new, how many were here already, what is never sent, and whether the run is over.

    ``page`` is the run's report that was written after it.
    """

    into: Path
    new: tuple[Artifact, ...]
    kept: int
    complete: bool
    left_out: tuple[LeftOut, ...] = ()
    page: Path | None = None

    @property
    def bytes(self) -> int:
        return sum(artifact.size for artifact in self.new)


def fetch(run: Run, report: Reporter, *, into: Path | None = None, best: bool = False) -> Fetched:
    """Brings a run's outputs home while or after it trains. Raises ManifestMissing, TransferErrors, ChecksumMismatch.

    With ``best`` those of a recipe but for its checkpoints: the chosen model, reports and logs.
    """
    fetched: Fetched | None = None
    with ReconnectingLink(host_of(run), report) as connection:
        while fetched is None:
            with connection.link() as link:
                fetched = fetch_over(link, run, report, into=into, best=best)
    return fetched


def fetch_over(link: Link, run: Run, report: Reporter, *, into: Path | None = None, best: bool = False) -> Fetched:
    """The same over a link that is there. The run's report is written too."""
    target = into.expanduser().absolute() if into else run.outputs_here
    with exclusively(run):
        wanted = {"select": only_chosen} if best else {}
        manifest, new = _fetch_all(link, run, target, report, **wanted)
    if best:
        store.update(run, fetched_into=str(target))  # what is not home stays so
    else:
        store.update(run, fetched_into=str(target), fetched_at=time.time() if manifest.complete else None)
    page = leave_page(run, report, link)
    return Fetched(target, tuple(new), len(manifest.files) - len(new), manifest.complete, manifest.left_out, page)


def _fetch_all(
    link: Link,
    run: Run,
    target: Path,
    report: Reporter,
    select: Callable[[Run, Manifest], Manifest] = lambda run, manifest: manifest,
) -> tuple[Manifest, list[Artifact]]:
    """What is wanted of the box's list, and those of its files that were not here. A run that goes on may change files meanwhile: it is
    asked again."""
    for _ in range(LISTINGS - 1):
        manifest = select(run, ask_manifest(link, run, report))
        try:
            return manifest, _bring_and_note(link, run, manifest.files, target, report)
        except CHANGED as error:
            if manifest.complete:
                raise
            report.warn(f"{error.message}; the run goes on, asking again what it has")
    manifest = select(run, ask_manifest(link, run, report))
    if manifest.complete:
        return manifest, _bring_and_note(link, run, manifest.files, target, report)
    return _bring_what_rests(link, run, manifest, target, report)


def _bring_what_rests(
    link: Link, run: Run, manifest: Manifest, target: Path, report: Reporter
) -> tuple[Manifest, list[Artifact]]:
    """One checkpoint after the other, then all else; what changes faster than it can be copied stays here as it is, and is left
    out of the list. Raises the error where that is everything.
    """
    batches: dict[str, list[Artifact]] = {kept.path: [] for kept in link.agent.checkpoints(run.run_id).values()}
    for file in manifest.files:
        parts = file.path.split("/")
        tops = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        batches.setdefault(next((top for top in tops if top in batches), ""), []).append(file)
    settled: list[Artifact] = []
    new: list[Artifact] = []
    trouble: ArtifactError | TransferFailed | None = None
    for files in filter(None, batches.values()):
        try:
            new += _bring_and_note(link, run, files, target, report)
            settled += files
        except CHANGED as error:
            trouble = error
            report.warn(f"{error.message}; it changes faster than it can be copied, and stays here as it was")
    if trouble and not settled:
        raise trouble
    return Manifest(manifest.complete, tuple(settled), manifest.left_out), new


def _bring_and_note(link: Link, run: Run, files: Sequence[Artifact], target: Path, report: Reporter) -> list[Artifact]:
    return bring(link, run, [files], target, report, lambda batch: note_place(run, target))


def note_place(run: Run, target: Path) -> None:
    """Notes where a run's outputs are, as soon as the first of them are there: the box may be gone before the others have come."""
    if not run.fetched_into:
        store.update(run, fetched_into=str(target))


def bring(
    link: Link,
    run: Run,
    batches: Sequence[Sequence[Artifact]],
    target: Path,
    report: Reporter,
    arrived: Callable[[Sequence[Artifact]], None] = lambda batch: None,
) -> list[Artifact]:
    """Copies, verifies and moves what is not here; gives it. A batch is moved as a whole, then told to ``arrived``, before the next begins.

    The files of all batches of which a beginning is here are gone on with. Raises as ``fetch`` does.
    """
    receipt, staging = Receipt(target), Staging(target)
    refuse_long_names(target, (artifact.path for batch in batches for artifact in batch))
    wanted = [
        not_here([artifact for artifact in batch if not receipt.has(artifact)], target, receipt) for batch in batches
    ]
    missing = [artifact for batch in wanted for artifact in batch]
    if missing:
        staging.open(missing)
    for batch, left in zip(batches, wanted, strict=True):
        if left:
            _bring_batch(link, run, left, target, report, staging, receipt)
        arrived(batch)
    staging.remove()
    return missing


def _bring_batch(
    link: Link, run: Run, missing: list[Artifact], target: Path, report: Reporter, staging: Staging, receipt: Receipt
) -> None:
    _check_space(target, sum(artifact.size for artifact in missing) - staging.size())
    staging.borrow(missing)
    with Verifier(missing, staging.files) as verifier:
        _pull(link, run, missing, staging, report, verifier.begin_early)
        with report.stage("verify and move", "bytes") as stage:
            verifier.finish(stage)
            _settle(missing, staging.files, target, receipt)


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
def exclusively(run: Run) -> Iterator[None]:
    """No other gpurun fetches this run during the block. Raises BeingFetched where one does already."""
    with file_lock_if_free(places.run_folder(run.run_id) / "fetch") as alone:
        if not alone:
            raise BeingFetched(
                f"another gpurun on this machine is fetching {run.run_id}", hint="Wait for it, or stop it."
            )
        yield


def _check_space(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target).free
    if needed > free:
        raise TransferFailed(
            f"{target} has {format_size(free)} free, and {format_size(needed)} are to come",
            meaning="Nothing was fetched; what was fetched before is as it was.",
            hint="Free some space, or fetch elsewhere: gpurun fetch --into DIR",
        )


def _pull(
    link: Link, run: Run, missing: list[Artifact], staging: Staging, report: Reporter, some_arrived: Callable[[], None]
) -> None:
    """Copies the files into staging, with another try where the copy breaks. The agent is not asked: its link may be broken too."""
    total = sum(artifact.size for artifact in missing)
    with report.stage(f"fetch {pluralise(len(missing), 'file')}", "bytes") as stage:
        stage.update(done=0, total=total)

        def tell(done: int) -> None:
            stage.update(done=min(done, total))
            some_arrived()

        for pause in (*PAUSES, None):
            try:
                return _pull_once(link, run, missing, staging, tell)
            except TransferInterrupted as error:
                if pause is None:
                    raise
                report.warn(f"{error.message}; going on from there")
                time.sleep(pause)  # the link itself cannot be awaited, only tried


def _pull_once(link: Link, run: Run, missing: list[Artifact], staging: Staging, tell: Callable[[int], None]) -> None:
    """First the files of which a beginning is here, then the others; ``tell`` gets the bytes so far."""
    begun, others = staging.parts(missing)
    before = 0
    for part in (begun, others):
        if part:
            rsync.pull(
                link.host,
                link.paths.run(run.run_id).outputs,
                [artifact.path for artifact in part],
                staging.files,
                go_on=part is begun,
                max_size=max(artifact.size for artifact in part) + (1 << 20),
                compress=link.slow,
                progress=lambda done, before=before: tell(before + done),  # type: ignore[misc]
            )
        before += sum(artifact.size for artifact in part)


def _settle(missing: list[Artifact], staged: Path, target: Path, receipt: Receipt) -> None:
    """Moves all verified files to their final names. After an interruption the next fetch recognises the moved ones as its own."""
    if own := [artifact.path for artifact in missing if not receipt.may_replace(artifact)]:
        raise in_the_way(target, own)  # it was made during the copy
    for artifact in missing:
        receipt.expect(artifact, staged / artifact.path)
    receipt.save()
    # A folder's manifest last: whoever finds it finds all that it lists.
    for artifact in sorted(missing, key=lambda artifact: artifact.path.endswith("/manifest.json")):
        final = target / artifact.path
        _real_folders(target, final.parent)
        os.replace(staged / artifact.path, final)
        receipt.note(artifact)
    receipt.save()


def _real_folders(top: Path, folder: Path) -> None:
    """Makes the folders below ``top``; refuses one that somebody swapped for a link."""
    for part in reversed([folder, *folder.parents]):
        if part == top or top not in part.parents:
            continue
        refuse_link(part)
        part.mkdir(exist_ok=True)
