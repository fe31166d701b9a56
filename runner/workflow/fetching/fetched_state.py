"""What is on a box, and which of it was fetched: the box lists its folders, and the files of this machine are compared with that."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from runner import store
from runner.domain import places
from runner.domain.answers.holdings import Held, Holdings
from runner.domain.answers.manifest import Artifact, LeftOut, Manifest
from runner.domain.errors import GpurunError, HostError
from runner.domain.progress import Reporter
from runner.domain.quantities import format_size, pluralise
from runner.domain.run import Run
from runner.transport.link import Link
from runner.workflow.fetching.receipt import Receipt
from runner.workflow.observing.follow import catch_up

AT_ONCE = 8  # requests


def list_holdings(link: Link, report: Reporter) -> Holdings:
    """Every run, push and process of gpurun's on the box, below all roots that this machine remembers."""
    roots = sorted({run.root for run in store.load_all()[0] if run.root})
    with report.stage("look at what is on the box") as stage:
        found = link.agent.holdings(roots)
        stage.update(note=pluralise(len(found.runs), "run"))
    return found


@dataclass(frozen=True)
class FetchedState:
    """What of a finished run is on this machine. ``reasons`` names what is not, and what to type; ``unreadable`` why it is unknown."""

    run_id: str
    manifest: Manifest | None = None
    missing: tuple[Artifact, ...] = ()
    log_complete: bool = False
    unreadable: str = ""

    @property
    def files(self) -> int:
        return len(self.manifest.files) if self.manifest else 0

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        return self.manifest.left_out if self.manifest else ()

    def reasons(self, leave_behind: bool = False) -> list[str]:
        """Empty when all of it is home; with ``leave_behind`` what is never fetched may go."""
        if self.manifest is None:
            return [f"it is unknown what of {self.run_id} is home: {self.unreadable}"]
        found = []
        if self.missing:
            verb = "is" if self.files == 1 else "are"
            found.append(
                f"{len(self.missing)} of {pluralise(self.files, 'file')} of {self.run_id}"
                f" ({format_size(sum(artifact.size for artifact in self.missing))}) {verb} not home,"
                f" {self.missing[0].path} among them: gpurun fetch {self.run_id}"
            )
        lost = [each for each in self.left_out if not each.dispensable]
        if lost and not leave_behind:
            found.append(
                f"{pluralise(len(lost), 'thing')} in outputs/ of {self.run_id} are never fetched, {lost[0]} among them: rename or"
                f" copy them on the box and fetch again, or give them up with gpurun done {self.run_id} --leave-behind"
            )
        if not self.log_complete:
            found.append(f"the log of {self.run_id} is not home: gpurun logs {self.run_id}")
        return found


def compare_with_local(link: Link, pairs: Iterable[tuple[Run, Held]]) -> dict[str, FetchedState]:
    """For each of these runs (all over) what of it is home; what is missing of their logs is brought. Several at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda pair: _compare(link, *pair), pairs))
    return {state.run_id: state for state in found}


def _compare(link: Link, run: Run, held: Held) -> FetchedState:
    try:
        manifest = link.agent.manifest(run.run_id, root=held.root)
    except HostError:
        raise
    except GpurunError as error:
        return FetchedState(run.run_id, unreadable=error.message)
    if not manifest.complete:
        return FetchedState(run.run_id, unreadable="it goes on")
    receipt = Receipt(run.outputs_here)
    missing = tuple(
        artifact for artifact in manifest.files if not receipt.has(artifact) and not receipt.is_left(artifact)
    )
    return FetchedState(run.run_id, manifest, missing, _has_log(link, run, held))


def _has_log(link: Link, run: Run, held: Held) -> bool:
    """Whether the whole log is here, once what was missing of it has been brought."""
    file = places.run_folder(run.run_id) / "log"
    if _size(file) < held.status.log_size and held.root == link.paths.root:
        catch_up(link, run)
    return _size(file) >= held.status.log_size


def _size(file: object) -> int:
    try:
        return file.stat().st_size  # type: ignore[attr-defined, no-any-return]
    except OSError:
        return 0
