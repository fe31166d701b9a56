"""What is on this machine of a run, for it to go on elsewhere: verified files, and of its checkpoints the one that is wanted."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runner import files
from runner.domain.answers.verbs import Kept
from runner.domain.errors import UserError
from runner.domain.run import Run
from runner.push.digest import digest
from runner.push.selection import Entry, Selection
from runner.workflow.checkpoints import listed_here
from runner.workflow.fetching.receipt import Receipt
from runner.workflow.submission.plan import Tree

AUTO = "auto"
BEST = "best"
_NUMBER = re.compile(r"[0-9]+")
_LOGS = "logs/"  # a resumed run writes its own


@dataclass(frozen=True)
class Outputs:
    """What a new run begins with: files below ``root`` with their sha256, and the checkpoint among them, if one is known as such."""

    root: Path
    files: Mapping[str, str]
    checkpoint: Kept | None

    def tree(self, run: Run) -> Tree:
        """The same as it is pushed. Raises OSError where a file is gone since."""
        entries = [self._entry(path) for path in sorted(self.files)]
        selection = Selection(self.root, entries, [])
        contents = {path: bytes.fromhex(sha256) for path, sha256 in self.files.items()}
        return Tree(f"outputs of {run.run_id}", selection, digest(selection, contents), contents=contents, fixed=True)

    def _entry(self, path: str) -> Entry:
        about = os.lstat(self.root / path)
        return Entry(path, about.st_size, about.st_mtime_ns, about.st_mode & 0o777, "file")


def outputs_at_home(run: Run, wanted: str) -> Outputs | None:
    """Of what fetches have brought: the newest complete checkpoint, or the one of the name ``wanted``, and all that is no checkpoint.

    None where there is nothing to go on from.
    """
    root = run.outputs_here
    verified = Receipt(root).verified()
    listed = {name: kept for name, kept in listed_here(run).items() if _is_whole(root, kept, verified)}
    chosen = choose(listed, wanted)
    if chosen is None and (wanted != AUTO or needs_checkpoint(run)):
        return None
    files = {path: verified[path] for path in without_others(run, verified, listed, chosen)}
    return Outputs(root, files, chosen) if files else None


def choose(listed: Mapping[str, Kept], wanted: str) -> Kept | None:
    """The checkpoint of this name, for ``auto`` the newest that can be resumed. Raises UserError for one that cannot."""
    if wanted == AUTO:
        able = [kept for name, kept in listed.items() if kept.resumable and name != BEST]
        return max(able, key=lambda kept: (kept.step or 0, kept.at or 0.0), default=None)
    found = listed.get(wanted)
    if found is not None and not found.resumable:
        able_names = ", ".join(name for name, kept in listed.items() if kept.resumable) or "none"
        raise UserError(
            f"{wanted} has kept only its weights: no training can go on from it",
            meaning="Nothing was started.",
            hint=f"These can be resumed: {able_names}",
        )
    return found


def without_others(run: Run, paths: Iterable[str], listed: Mapping[str, Kept], chosen: Kept | None) -> list[str]:
    """The paths without logs, and without checkpoints that the chosen one stands for.

    Of a program's own only those go that differ from it in their number alone: it may need every other file that looks like one.
    """
    paths = [path for path in paths if not path.startswith(_LOGS)]
    if chosen is None:
        return paths
    if needs_checkpoint(run):
        return [path for path in paths if not path.startswith("checkpoints/") or _is_in(path, chosen.path)]
    form = _NUMBER.sub("", chosen.path)
    others = [kept.path for kept in listed.values() if kept.step != chosen.step and _NUMBER.sub("", kept.path) == form]
    return [path for path in paths if not any(_is_in(path, other) for other in others)]


def needs_checkpoint(run: Run) -> bool:
    """Whether the run is one of gpurun's recipes: they go on from a checkpoint or not at all."""
    return run.job.recipe is not None and not run.job.has_own_recipe


def _is_in(path: str, place: str) -> bool:
    return path == place or path.startswith(place + "/")


def _is_whole(root: Path, kept: Kept, verified: Mapping[str, str]) -> bool:
    """Whether each file of the checkpoint is verified, and all are there that its own manifest names."""
    place = root / kept.path
    if place.is_file():
        return kept.path in verified
    there = [path for path in place.rglob("*") if not path.is_dir()]
    if not there or any(str(path.relative_to(root)) not in verified for path in there):
        return False
    named = files.read_json(place / "manifest.json").get("files")
    paths = [each.get("path") for each in named if isinstance(each, dict)] if isinstance(named, list) else []
    return all(f"{kept.path}/{path}" in verified for path in paths)
