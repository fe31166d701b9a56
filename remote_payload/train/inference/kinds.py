"""What kind of model a folder holds that gpurun did not save, by its configuration alone. Standard library: the laptop asks too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

PlainKind = Literal["causal_lm", "sequence_classifier", "encoder"]
TASKS: dict[str, PlainKind] = {"CAUSAL_LM": "causal_lm", "SEQ_CLS": "sequence_classifier"}


def plain_kind(config: Mapping[str, object], adapter: Mapping[str, object] | None = None) -> PlainKind:
    """The kind of model that ``config`` (config.json) describes; an ``adapter`` (adapter_config.json) may say by its task what it was
    trained as. ``config`` is the base's where there is an adapter. A model of any other architecture is an encoder."""
    task = str((adapter or {}).get("task_type"))
    if task in TASKS:
        return TASKS[task]
    architectures = config.get("architectures")
    named = [str(name) for name in architectures] if isinstance(architectures, list) else []
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in named):
        return "causal_lm"
    if any(name.endswith("ForSequenceClassification") for name in named):
        return "sequence_classifier"
    return "encoder"
