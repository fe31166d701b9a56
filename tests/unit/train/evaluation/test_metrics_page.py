"""docs/metrics.md names every figure that a recipe gives."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from remote_payload.settings import RECIPES
from remote_payload.train.evaluation.json_metrics import json_metrics
from remote_payload.train.evaluation.text_metrics import reference_metrics, vocabulary_richness

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "metrics.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_a_recipe_may_be_judged_by_is_explained(recipe: str) -> None:
    for name in importlib.import_module(f"remote_payload.settings.{recipe}").METRICS:
        known = name.partition("/")[0].replace("{binary_threshold}", "N")
        assert f"`{known}`" in PAGE, name


def test_figures_about_answers_are_explained() -> None:
    text, schema = ["a b c d"], [{}]
    for name in {**json_metrics(text, text, schema), **reference_metrics(text, text), **vocabulary_richness(text)}:
        assert f"`{name}`" in PAGE, name
