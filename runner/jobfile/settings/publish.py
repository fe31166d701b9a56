"""``settings.publish.repository``: where a run publishes its model. ``{name}`` in it is the run's name, so that no two runs of a sweep
share one."""

from __future__ import annotations

import copy
import re
from collections import Counter
from dataclasses import replace

from remote_payload.publish.report import REPOSITORY
from runner.domain.job import Job
from runner.domain.sweep import SweepRun, expand
from runner.jobfile.problems import Problem, quoted
from runner.jobfile.tree import Node

GROUP, FIELD, NAME = "publish", "repository", "{name}"


def check_repository(job: Job | None, tree: Node, path: str) -> list[Problem]:
    """A repository that cannot be, and one that several runs of a sweep would write, each over the one before."""
    if job is None or job.has_own_recipe:
        return []
    node = tree.get("settings", GROUP, FIELD)
    place = node.place if node else tree.key_place("sweep" if job.sweep else "settings")
    try:
        runs = expand(job.name, job.sweep or {})
    except ValueError:  # reported where the sweep is checked
        return []
    taken = Counter(_named(each, run.name) for run in runs if isinstance(each := _written(job, run), str))
    found = []
    for repository, count in taken.items():
        if not re.fullmatch(REPOSITORY, repository):
            message = f"{quoted(repository)} is no repository of the Hub: write owner/name, such as me/legal, or me/{NAME}: the run's name"
            found.append(Problem(path, place, f"settings.{GROUP}.{FIELD}: {message}"))
        elif count > 1:
            owner = repository.partition("/")[0]
            message = (
                f"{count} runs of this sweep would publish to {repository}, each over the one before; "
                f'{NAME} stands for the name of the run: "{owner}/{NAME}"'
            )
            found.append(Problem(path, place, f"settings.{GROUP}.{FIELD}: {message}"))
    return found


def with_repository(job: Job) -> Job:
    """The job with its name in the place of ``{name}``; that of a sweep as it is, since its runs have the names."""
    written = job.setting(GROUP, FIELD)
    if job.sweep or job.has_own_recipe or not isinstance(written, str):
        return job
    settings = copy.deepcopy(job.settings)
    settings[GROUP][FIELD] = _named(written, job.name)
    return replace(job, settings=settings)


def _written(job: Job, run: SweepRun) -> object:
    """The repository of one run, which may be an axis of the sweep itself."""
    group = run.overrides.get(f"settings.{GROUP}")
    inside = group.get(FIELD) if isinstance(group, dict) else job.setting(GROUP, FIELD)
    return run.overrides.get(f"settings.{GROUP}.{FIELD}", inside)


def _named(repository: str, name: str) -> str:
    return repository.replace(NAME, name)
