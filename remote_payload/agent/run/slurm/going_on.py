"""A Slurm job that starts again goes on from the run's own last checkpoint."""

import os

from remote_payload.agent.box.files import read_json
from remote_payload.agent.run.checkpoints import of_run
from remote_payload.agent.run.checkpoints.own_manifests import complete_folders
from remote_payload.agent.run.checkpoints.rule import read_rule
from remote_payload.agent.run.manifest import find
from remote_payload.agent.run.order import LaunchFile
from remote_payload.agent.wire.paths import RunPaths


def what_to_resume(run: RunPaths, launch: LaunchFile) -> str:
    """What ``GPURUN_RESUME`` says to a job that starts again: as for a run that is resumed. A recipe finds its checkpoints itself."""
    if is_command(run):
        return of_run.choose(run, read_rule(run), of_run.AUTO, launch.outputs)
    return of_run.AUTO


def has_new_checkpoint(run: RunPaths, since: float) -> bool:
    """Whether a checkpoint was completed after ``since``, by the clock of the run's disk: without one a restart would begin where this
    start began."""
    paths, _ = find(run)
    for folder in complete_folders(run.outputs, paths):
        if not folder.startswith("checkpoints/"):
            continue  # a recipe's results
        manifest = os.path.join(run.outputs, folder, "manifest.json")
        try:
            if os.stat(manifest).st_mtime >= since:
                return True
        except OSError:
            continue
    complete, _ = of_run.list_foreign(run, read_rule(run), is_running=False)
    return any(each["resumable"] and (each["at"] or 0.0) >= since for each in complete)


def is_command(run: RunPaths) -> bool:
    """Whether the job is a command, and no recipe."""
    return not (read_json(run.job) or {}).get("recipe")
