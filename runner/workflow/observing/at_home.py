"""Where the outputs of a run are, as far as this machine knows without asking anybody."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runner.domain.run import Run
from runner.workflow.checkpoints import listed_here
from runner.workflow.observing.listing import listdir


@dataclass(frozen=True)
class AtHome:
    """``folder``: where something of it is on this machine; ``complete``: all of it, of a run that is over. ``checkpoints``: the complete
    ones that are here, the oldest first, the finished model among them."""

    folder: Path | None
    complete: bool
    checkpoints: tuple[str, ...]


def at_home(run: Run) -> AtHome:
    """What ``fetch`` and ``keep`` have brought here of a run."""
    here = run.outputs_here
    if not listdir(here):
        return AtHome(None, complete=False, checkpoints=())
    found = sorted(listed_here(run).values(), key=lambda each: (each.name == "best", each.step or 0, each.at or 0.0))
    return AtHome(here, run.fetched_at is not None, tuple(each.name for each in found))
