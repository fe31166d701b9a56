"""What the manifest of a run that goes on lists of the files that a program of the user's own wrote."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Dict, List

from remote_payload.agent.run.checkpoints.complete import Judged, judge, unchanged
from remote_payload.agent.run.checkpoints.endings import append_only
from remote_payload.agent.run.checkpoints.forms import find_units
from remote_payload.agent.run.checkpoints.own_manifests import is_inside
from remote_payload.agent.run.checkpoints.rule import is_foreign, read_rule
from remote_payload.agent.wire.paths import RunPaths

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Artifact


def judge_written(run: RunPaths, found: Dict[str, os.stat_result], folders: List[str]) -> List[Judged]:
    """Of a run that goes on: what a program of the user's own wrote, complete or not; empty for gpurun's recipes."""
    if not is_foreign(run):
        return []
    rule = read_rule(run)
    units = find_units((path for path in found if not is_inside(path, folders)), rule)
    return judge(run.outputs, [unit for unit in units if unit.is_folder or not append_only(unit.path)], rule)


def settled(found: Dict[str, os.stat_result], folders: List[str], written: List[Judged]) -> Dict[str, os.stat_result]:
    """The files that are listed while the run goes on."""
    judged = {path: each.why is None for each in written for path in each.unit.files}
    return {
        path: status
        for path, status in found.items()
        if judged.get(path, append_only(path)) or is_inside(path, folders)
    }


def without_changed(outputs: str, files: List[Artifact], written: List[Judged]) -> List[Artifact]:
    """Without the files of units that changed, or lost a file, while they were hashed."""
    hashed = {each["path"] for each in files}
    gone = set()
    for judged in written:
        if judged.why is None and not (hashed.issuperset(judged.unit.files) and unchanged(outputs, judged)):
            gone.update(judged.unit.files)
    return [each for each in files if each["path"] not in gone]
