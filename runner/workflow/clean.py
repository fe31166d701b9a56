"""What gpurun may delete on a box: looked at first, deleted when told to."""

from __future__ import annotations

from dataclasses import dataclass

from runner import store
from runner.domain.progress import Reporter
from runner.domain.terminal import clean as cleaned
from runner.transport.link import Link


@dataclass(frozen=True)
class Item:
    """One thing on the box; ``why`` says why it stays, for what is kept."""

    path: str
    bytes: int
    why: str = ""


@dataclass(frozen=True)
class Cleaned:
    removed: tuple[Item, ...]
    kept: tuple[Item, ...]

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.removed)


def clean(
    link: Link, report: Reporter, *, dry_run: bool, run_ids: list[str], everything: bool, only_named: bool = False
) -> Cleaned:
    """Runs that are over and home, and what nothing refers to; ``run_ids`` although not home; never a live run.

    With ``only_named`` runs that are home stay too: what an experiment keeps is kept on the box.
    """
    # Not fetched_at: that may have been while it trained, and the best model came later.
    home = [run.run_id for run in store.load_all()[0] if run.done]
    args = {
        "dry_run": dry_run,
        "run_ids": run_ids,
        "fetched": [] if only_named else home,
        "everything": everything,
    }
    with report.stage("look at what may go" if dry_run else "delete") as stage:
        answer = link.agent.call("clean", args, progress=lambda value: stage.update(note=str(value.get("line") or "")))
    return Cleaned(_items(answer.get("removed")), _items(answer.get("kept")))


def experiment_leftovers(experiment: str, keep: int) -> list[str]:
    """Of an experiment's runs that succeeded, all but the first ``keep`` to finish; of the others, every one that is over."""
    runs = [
        run for run in store.load_all()[0] if run.experiment == experiment and run.status.get("phase") == "finished"
    ]
    good = sorted(
        (run for run in runs if run.status.get("outcome") == "succeeded"),
        key=lambda run: run.status.get("ended_at") or 0,
    )
    kept = {run.run_id for run in good[:keep]}
    return [run.run_id for run in runs if run.run_id not in kept]


def _items(entries: object) -> tuple[Item, ...]:
    if not isinstance(entries, list):
        return ()
    found = []
    for entry in entries:
        if isinstance(entry, dict):
            size = entry.get("bytes")
            why = entry.get("why")
            found.append(
                Item(
                    cleaned(entry.get("path"), 300),
                    size if isinstance(size, int) else 0,
                    cleaned(why, 200) if why else "",
                )
            )
    return tuple(found)
