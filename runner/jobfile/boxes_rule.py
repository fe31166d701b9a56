"""The checks of a job that runs on several boxes at once."""

from __future__ import annotations

from runner.domain.job import Job
from runner.jobfile.problems import Problem
from runner.jobfile.tree import Node


def check_boxes(job: Job | None, tree: Node, path: str) -> list[Problem]:
    """What does not go with several boxes, each at its place."""
    if job is None or job.resources.boxes == 1:
        return []
    found = []
    if job.queue:
        # Two such runs that each hold one box and wait for the other would wait for ever.
        message = "queue: true does not go with resources.boxes: such a run starts where all its GPUs are free"
        found.append(Problem(path, tree.key_place("queue"), message))
    if job.recipe is not None:
        message = (
            'several boxes run a command, not a recipe: command: [torchrun, --nproc-per-node, "{processes}", train.py]'
        )
        found.append(Problem(path, tree.key_place("recipe"), message))
    command = tree.get("command")
    for word in command.items if command is not None and command.kind == "list" else ():
        if word.value == "--standalone":
            message = "--standalone is for one box: leave this word out, gpurun tells torchrun where the others are"
            found.append(Problem(path, word.place, message))
    return found
