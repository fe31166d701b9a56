"""``keep_finished: N`` in a job: of the runs of one submission that differ in the seed alone, the checkpoints and models of the first N to
finish stay on the box. Those of a later one are removed when it finishes, before anything of it is offered to the laptop.

Logs, events, reports and metrics stay, so that every run counts in a comparison. A run that failed or was stopped keeps all: it can be
resumed.
"""

from __future__ import annotations

import os
import posixpath
import shutil
from contextlib import contextmanager
from typing import Dict, Iterator, List

from remote_payload.agent.box import locks
from remote_payload.agent.box.files import disk_usage, read_json, write_json
from remote_payload.agent.box.snapshot import runs_newest_first
from remote_payload.agent.run import events, manifest, slot
from remote_payload.agent.run.checkpoints import of_run
from remote_payload.agent.run.checkpoints.own_manifests import complete_folders
from remote_payload.agent.run.checkpoints.rule import rule_of_job
from remote_payload.agent.run.order import read_launch
from remote_payload.agent.wire.paths import BoxPaths, RunPaths
from remote_payload.agent.wire.retention import REASON, Complete, first_to_finish

OF_A_RECIPE = ("checkpoints", "models")
PATIENCE = 60.0  # seconds for another run of the group that finishes at the same time
HIDDEN = ".removed-"  # prefix, in the run's folder, of what is being deleted


def remove_surplus(paths: BoxPaths, run: RunPaths) -> None:
    """For a run that has just ended: removes its checkpoints and models where enough runs of its group finished before. Raises OSError."""
    keep, group = _rule(run)
    if not keep or not group:
        return
    with _alone(paths, group):
        alike = [each for each in runs_newest_first(paths) if _rule(each)[1] == group]
        complete = {each.run_id: _ended_at(each) for each in alike if _is_complete(each)}
        stay = first_to_finish([Complete(run_id, at) for run_id, at in complete.items()], keep)
        for each in alike:
            _delete_hidden(each)
            if each.run_id in complete and each.run_id not in stay:
                _remove(each, REASON + "%d, and %s finished before" % (keep, " and ".join(stay)))


def _rule(run: RunPaths) -> "tuple[int, str]":
    """How many runs of its group keep theirs, and the group; 0 and "" where its job says nothing."""
    launch, job = read_launch(run), read_json(run.job) or {}
    keep, group = job.get("keep_finished"), (launch.asked or {}).get("group") if launch else None
    usable = isinstance(keep, int) and not isinstance(keep, bool) and keep > 0 and isinstance(group, str)
    return (int(keep or 0), str(group)) if usable else (0, "")


@contextmanager
def _alone(paths: BoxPaths, group: str) -> Iterator[None]:
    """For the length of the block no other run of the group decides. Raises OSError where one takes too long."""
    os.makedirs(paths.locks, 0o700, exist_ok=True)
    lock = locks.take_within(locks.lock_file(os.path.join(paths.locks, "finished-" + group)), PATIENCE)
    if lock is None:
        raise OSError("another run of the same experiment has been removing outputs for a minute")
    try:
        yield
    finally:
        os.close(lock)


def _is_complete(run: RunPaths) -> bool:
    """Whether it succeeded, and has results that were not removed."""
    record = slot.read(run)
    succeeded = record is not None and (record.kind, record.number) == ("exit", 0)
    return succeeded and read_json(run.removed) is None and any(files for _, _, files in os.walk(run.outputs))


def _ended_at(run: RunPaths) -> float:
    record = slot.read(run)
    return record.at if record is not None else 0.0


def _remove(run: RunPaths, why: str) -> None:
    """Notes what goes before it goes: where that is interrupted, no half of it is taken for a result."""
    places = _places(run)
    freed = sum(disk_usage(os.path.join(run.outputs, place)) for place in places)
    gone: Dict[str, object] = {"paths": places, "why": why}
    write_json(run.removed, gone)
    for number, place in enumerate(places):
        os.rename(os.path.join(run.outputs, place), os.path.join(run.folder, "%s%d" % (HIDDEN, number)))
    _delete_hidden(run)
    message = "%s (%.1f GB) removed: %s" % (", ".join(places[:5]) or "nothing", freed / 1e9, why)
    events.append(run.events, "flag", name="outputs_removed", message=message)


def _places(run: RunPaths) -> List[str]:
    """The files and folders with weights, relative to the outputs; none inside another."""
    job = read_json(run.job) or {}
    if job.get("recipe"):
        return [name for name in OF_A_RECIPE if os.path.lexists(os.path.join(run.outputs, name))]
    files, _ = manifest.find(run)
    whole, unfinished = of_run.list_foreign(run, rule_of_job(job), is_running=False)
    found = {
        *complete_folders(run.outputs, files),
        *(each["path"] for each in whole),
        *(each["path"] for each in unfinished),
    }
    return sorted(path for path in found if path and not any(_is_below(path, other) for other in found))


def _is_below(path: str, other: str) -> bool:
    return path != other and posixpath.normpath(path).startswith(posixpath.normpath(other) + "/")


def _delete_hidden(run: RunPaths) -> None:
    for name in os.listdir(run.folder):
        path = os.path.join(run.folder, name)
        if name.startswith(HIDDEN) and os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif name.startswith(HIDDEN):
            os.unlink(path)
