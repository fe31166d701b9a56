"""``gpurun.json``: what a model's folder says about the model, for whoever loads it or asks it something."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict, cast

from remote_payload.train.download import BaseFacts
from remote_payload.train.errors import InputError
from remote_payload.train.files import read_json_object, write_json

MODEL_FACTS = "gpurun.json"
FORMAT = 1


class Prompting(TypedDict, total=False):
    """How a causal language model was trained to be asked."""

    recipe: str
    max_length: int  # tokens of the longest training example
    chat: bool  # prompts go through the chat template of the model's tokenizer
    prompt_template: str | None  # without chat: text with {fields}
    system_prompt: str | None
    end_tokens: list[int]  # token ids at which an answer ends


class WeightsFacts(TypedDict, total=False):
    """Which evaluation the weights are of, and a remark where they are not those of the best evaluation."""

    step: int
    note: str


class ModelFacts(Prompting, WeightsFacts, total=False):
    """The whole document. ``labels``, ``binary_threshold``, ``head`` and ``pooling`` are a classifier's."""

    format: int
    kind: str  # "classifier" or "causal_lm"
    base: BaseFacts | None  # None: trained from nothing
    adapter: bool  # the folder holds an adapter, not a whole model
    dtype: str
    labels: list[int | str]
    binary_threshold: int | None  # classes from this number on are positive
    head: str
    pooling: str


def read_model_facts(folder: Path, kind: str | None = None) -> ModelFacts:
    """The document in a model's folder. Raises InputError when it is missing, unreadable or of a model of another ``kind``."""
    try:
        facts = cast(ModelFacts, read_json_object(folder / MODEL_FACTS))
    except InputError as error:
        raise InputError(f"{folder}: no readable gpurun.json, so not a model that gpurun saved ({error})") from None
    if kind and (facts.get("kind") != kind or facts.get("format") != FORMAT):
        found = f"a {facts.get('kind')}, format {facts.get('format')}"
        raise InputError(f"{folder}: gpurun.json describes {found}, not a {kind}")
    return facts


def write_model_facts(folder: Path, facts: ModelFacts) -> None:
    """Writes the document; the file is complete under its name or not there."""
    write_json(folder / MODEL_FACTS, facts)


def prompting_of(facts: ModelFacts) -> Prompting:
    """The part that another model, trained further from this one, takes over."""
    return cast(Prompting, {name: value for name, value in facts.items() if name in Prompting.__annotations__})
