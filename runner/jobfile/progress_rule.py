"""``progress:`` of a job file: presets that exist, patterns that compile and say where the step stands."""

from __future__ import annotations

from remote_payload.agent.run.progress.patterns import problem
from runner.domain.job import Job
from runner.jobfile.problems import Problem
from runner.jobfile.tree import Node


def check_progress(job: Job | None, tree: Node, path: str) -> list[Problem]:
    """The first thing that is wrong with it, at its place."""
    written = tree.get("progress")
    if job is None or job.progress is None or written is None:
        return []
    if job.recipe and not job.has_own_recipe:
        message = (
            "progress: the recipe tells its steps itself; this is for a program or a recipe of your own: leave it out"
        )
        return [Problem(path, tree.key_place("progress"), message)]
    found = problem(job.progress)
    if found is None:
        return []
    number, message = found
    place = written.items[number].place if number < len(written.items) else tree.key_place("progress")
    return [Problem(path, place, f"progress{f'[{number}]' if len(job.progress) > 1 else ''}: {message}")]
