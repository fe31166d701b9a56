"""``gpurun report``: brings what is known of runs up to date, and writes their page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from remote_payload.publish.scrub import Scrubber
from runner.domain import places
from runner.domain.errors import GpurunError, HostError
from runner.domain.job import SECRET_NAME
from runner.domain.progress import Reporter
from runner.domain.quantities import format_size
from runner.domain.run import Run
from runner.files import write_text
from runner.report.page import render
from runner.workflow.each_host import Place, ask_each_host, by_place
from runner.workflow.observing.follow import catch_up
from runner.workflow.observing.history import history_of
from runner.workflow.reporting.one_run import page_of
from runner.workflow.reporting.several_runs import page_of_several

if TYPE_CHECKING:
    from runner.transport.link import Link

QUICK = 32 << 20  # bytes of a log that a fetch brings beside the outputs
TAIL = 4096  # bytes at the end of the events, where a finished run has its last one


@dataclass(frozen=True)
class Written:
    """The file and its size. ``notes``: why some of it may be behind."""

    path: Path
    bytes: int
    notes: tuple[str, ...] = ()


def report_of(runs: Sequence[Run], report: Reporter, into: Path | None = None) -> Written:
    """The page of these runs, in ``into``; else that of one run beside its record, of several in the current folder.

    What may have changed is brought from the boxes first. Raises DiskTrouble.
    """
    notes = refresh(runs, report)
    with report.stage("write the report"):
        return write(runs, into or (own_place(runs[0]) if len(runs) == 1 else _place_of_several(runs)), notes)


def own_place(run: Run) -> Path:
    """Where the page of a run lies."""
    return places.run_folder(run.run_id) / "report.html"


def _place_of_several(runs: Sequence[Run]) -> Path:
    """In the folder where the command was typed, under the id of their sweep or the first run's."""
    submissions = {run.submission for run in runs}
    return Path.cwd() / f"report-{(submissions.pop() if len(submissions) == 1 else None) or runs[0].run_id}.html"


def write(runs: Sequence[Run], into: Path, notes: Sequence[str] = ()) -> Written:
    """Writes the page from what is here. Raises DiskTrouble."""
    page = page_of(runs[0], history_of(runs[0]), notes) if len(runs) == 1 else page_of_several(runs, notes)
    text = render(page, Scrubber(_secrets(runs)).without_secrets)
    write_text(into, text)
    return Written(into, into.stat().st_size, tuple(notes))


def _secrets(runs: Sequence[Run]) -> list[str]:
    """The values that may not stand in the page: the secrets that the jobs name, and variables that look like one."""
    found = [os.environ.get(name, "") for run in runs for name in run.job.secrets]
    variables = [each for run in runs for each in run.job.environment.variables.items()]
    return found + [value for name, value in variables if SECRET_NAME.search(name)]


def leave_page(run: Run, report: Reporter, link: Link | None = None) -> Path | None:
    """Writes the run's page beside its record, from what is here and what ``link`` brings quickly; gives its place.

    Whatever goes wrong is a warning, since the page can be made again: None then.
    """
    try:
        with report.stage("write the report"):
            notes = _bring_quickly(link, run) if link is not None and is_behind(run) else []
            return write([run], own_place(run), notes).path
    except Exception as error:  # also a mistake of ours: what was asked for was something else, and is done
        told = error.message if isinstance(error, GpurunError) else f"{type(error).__name__}: {error}"
        report.warn(f"the report of {run.run_id} was not written: {told}")
        return None


def _bring_quickly(link: Link, run: Run) -> list[str]:
    """Log and events, unless much of the log is missing; a sentence where not all is here now."""
    try:
        missing = link.agent.status(run.run_id).log_size - log_size(run)
        if missing > QUICK:
            return [
                f"{format_size(missing)} of the log are still on the box, and what came with them: gpurun report brings it."
            ]
        catch_up(link, run)
    except GpurunError as error:
        return [f"This is what was here: {error.message}"]
    return []


def refresh(runs: Sequence[Run], report: Reporter) -> list[str]:
    """Brings log, events and status of these runs up to date, over one connection to each box.

    Gives a sentence for each run of which something newer may be on its box.
    """
    groups = by_place(run for run in runs if is_behind(run))
    notes = []

    def bring(place: Place, link: Link, told: Reporter) -> None:
        for run in groups[place]:
            try:
                catch_up(link, run)
            except HostError:
                raise
            except GpurunError as error:
                notes.append(f"Of {run.run_id} this is what was here: {error.message}")

    answers = ask_each_host(groups, bring, report)
    for place, error in answers.errors.items():
        names = ", ".join(run.run_id for run in groups[place])
        notes.append(f"Of {names} this is what was here: {error.message}")
    for note in notes:
        report.warn(note)
    return notes


def is_behind(run: Run) -> bool:
    """Whether its box may have more of its log or events than is here."""
    if not run.may_be_there:
        return False
    if run.status is None or not run.status.finished:
        return True
    try:
        with (places.run_folder(run.run_id) / "events.jsonl").open("rb") as events:
            events.seek(max(0, events.seek(0, os.SEEK_END) - TAIL))
            ended = b'"ended"' in events.read()
    except OSError:
        return True
    return not ended or log_size(run) < run.status.log_size


def log_size(run: Run) -> int:
    """Bytes of this machine's copy of the log."""
    try:
        return (places.run_folder(run.run_id) / "log").stat().st_size
    except OSError:
        return 0
