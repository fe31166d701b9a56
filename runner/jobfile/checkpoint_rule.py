"""``checkpoints:`` of a job file against its other fields."""

from __future__ import annotations

import re

from remote_payload.agent.run.checkpoints.rule import Rule
from runner.domain.job import Job
from runner.jobfile.problems import Problem, quoted
from runner.jobfile.tree import Node

_TIME = re.compile(r"[0-9.]+s")


def check_checkpoints(job: Job | None, tree: Node, path: str) -> list[Problem]:
    """The rule is one for code of the user's own, names what comes home, and says of which files a mark is."""
    written = tree.get("checkpoints")
    if job is None or job.checkpoints is None or written is None:
        return []
    if job.recipe and not job.has_own_recipe:
        message = "checkpoints: the recipe's own are known; this is for a program or a recipe of your own: leave it out"
        return [Problem(path, tree.key_place("checkpoints"), message)]
    pattern, when = job.checkpoints.pattern, job.checkpoints.complete_when
    if pattern is None and when is not None and not _TIME.fullmatch(when):
        message = (
            f"checkpoints.complete_when: {quoted(when)} is a file's name, so pattern: has to say of which checkpoints"
        )
        return [Problem(path, written.key_place("complete_when"), message)]
    if pattern is None or _comes_home(pattern, job.outputs or ()):
        return []
    there = ", ".join(job.outputs or ()) or "nothing"
    message = f"checkpoints.pattern: {quoted(pattern)} is not below outputs: ({there}), so it would not come home"
    return [Problem(path, written.key_place("pattern"), message)]


def _comes_home(pattern: str, outputs: tuple[str, ...]) -> bool:
    return any(pattern.startswith(f"{name}/") or Rule(pattern).matches(name) for name in outputs)
