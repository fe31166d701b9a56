"""The metric that a recipe is to choose its best model by: it must be one that the recipe reports."""

from __future__ import annotations

from pathlib import Path

from remote_payload.settings.metrics import is_higher_better, metrics_of
from runner.domain.job import Settings
from runner.jobfile.problems import Problem, quoted, suggestion
from runner.jobfile.tree import Node


def check_metric(recipe: str, settings: Settings, tree: Node, path: str, folder: Path) -> list[Problem]:
    """What is wrong with ``settings.evaluation.metric`` of completed settings."""
    name = settings["evaluation"]["metric"]
    known = metrics_of(recipe, settings, str(folder))
    if is_higher_better(known, name) is not None:
        return []
    node = tree.get("settings", "evaluation", "metric")
    place = node.place if node else tree.key_place("recipe")
    advice = suggestion(name, known) or ": there are " + ", ".join(known)
    return [Problem(path, place, f"settings.evaluation.metric: {recipe} has no metric {quoted(name)}{advice}")]
