"""The metrics that a recipe can choose its best model by, and which way each of them is better.

Every recipe states its own once, as ``METRICS = {name: higher_is_better}`` beside its settings. In a name ``{setting}`` stands for the
value of that setting, and ``<set>`` for the name of any evaluation set.
"""

from __future__ import annotations

import importlib
from typing import Any, Dict, Mapping, Optional

from remote_payload.settings import is_own
from remote_payload.settings.own import read_declarations


def metrics_of(recipe: str, settings: Mapping[str, Any], folder: str = ".") -> Dict[str, bool]:
    """``{name: higher_is_better}`` with these settings; a metric whose setting is null is not computed, so it is left out.

    ``folder`` is what the path of a user's own recipe is relative to; one that is none raises RecipeError.
    """
    stated: Dict[str, bool]
    if is_own(recipe):
        stated = read_declarations(recipe, folder).metrics
    else:
        stated = importlib.import_module("remote_payload.settings.%s" % recipe).METRICS
    known = {}
    for name, higher in stated.items():
        field = name.partition("{")[2].partition("}")[0]
        if not field:
            known[name] = higher
        elif settings.get(field) is not None:
            known[name.format(**settings)] = higher
    return known


def is_higher_better(metrics: Mapping[str, bool], name: str) -> Optional[bool]:
    """Whether more of the metric is better; None for a metric that is not among ``metrics``."""
    kind, slash, of = name.partition("/")
    return metrics.get(kind + "/<set>" if slash and of else name)
