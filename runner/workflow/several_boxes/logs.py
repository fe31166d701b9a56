"""The logs of the boxes of a run besides that of rank 0: brought here where the run failed, since the reason may stand there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from runner.domain import places
from runner.domain.answers.verbs import Piece
from runner.domain.errors import GpurunError
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.files import writing
from runner.transport.link import Link
from runner.workflow.each_host import Place, ask_each_host


@dataclass(frozen=True)
class OtherLog:
    """The log of one of the other boxes, by its rank: a file of this machine, or why it could not be had."""

    rank: int
    host: str
    file: Path
    error: GpurunError | None = None


def bring_logs(run: Run, report: Reporter) -> list[OtherLog]:
    """Copies the log of each other box to ``boxes/<rank>.log`` in the run's folder here. One from an earlier look stays where its box
    does not answer any more."""
    ranks = {Place(other.host, other.volume): rank for rank, other in enumerate(run.others, start=1)}
    answers = ask_each_host(ranks, lambda place, link, told: _copy(link, run, _file(run, ranks[place])), report)
    return [OtherLog(rank, place.host, _file(run, rank), answers.errors.get(place)) for place, rank in ranks.items()]


def _file(run: Run, rank: int) -> Path:
    return places.run_folder(run.run_id) / "boxes" / f"{rank}.log"


def _copy(link: Link, run: Run, file: Path) -> None:
    """Under another name until all of it is here. A part that the box has dropped is left out."""
    file.parent.mkdir(mode=0o700, exist_ok=True)
    partial = file.with_suffix(".partial")
    with writing(file), open(partial, "wb") as copy:
        for message in link.agent.follow(run.run_id, log_offset=0, generation=None, events_offset=0, until_end=False):
            if isinstance(message, Piece) and message.of == "log":
                copy.write(message.data)
    os.replace(partial, file)
