"""Settings of an evaluation: which models are measured, on which data, and how a language model is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Literal, Optional

from remote_payload.settings import sft
from remote_payload.settings.generation import Answering
from remote_payload.settings.setting import required, setting

# Which way is better, of everything that an evaluation may be held to; what is not here (lengths, times) is only shown.
METRICS = {
    **sft.METRICS,
    "accuracy": True,
    "macro_f1": True,
    "weighted_f1": True,
    "macro_precision": True,
    "macro_recall": True,
    "right": True,
    "contains_right": True,
    "any_right": True,
}


def is_more_better(metric: str) -> Optional[bool]:
    """Whether more of the metric is better; None for one that is neither good nor bad. ``sets/NAME`` is the mean of NAME over the sets."""
    name = metric[len("sets/") :] if metric.startswith("sets/") else metric
    return True if name.startswith("binary_f1_") else METRICS.get(name)


@dataclass
class ModelToMeasure:
    """A model, and the name of its column."""

    name: str = required("What it is called in the results.")
    folder: str = required("The folder of the model, an adapter's too, or its name on the Hub.", kind="data")
    base: Optional[str] = setting(None, "The folder of an adapter's base model, or its name on the Hub.", kind="data")
    base_revision: Optional[str] = setting(None, "The commit of a base of the Hub.")
    revision: Optional[str] = setting(None, "Branch, tag or commit of a model of the Hub.")


@dataclass
class Asking(Answering):
    """One way to ask a language model: a cell of the grid."""

    name: str = setting("", "What it is called in the results; empty where there is only one.")


@dataclass
class EvaluateSettings:
    """Several models on the same data, which was not trained on. Nothing is trained."""

    models: List[ModelToMeasure] = required("The models, in the order of the columns.")
    data: str = required("JSON Lines, JSON, parquet, or a text file with a prompt a line.", kind="data")
    base: bool = setting(True, "Also measure the base model of each adapter of a language model.")
    examples: Optional[int] = setting(None, "So many examples from the beginning; null for all of them.", ge=1)
    text_field: str = setting("text", "For a classifier, the field with the text.")
    label_field: str = setting("label", "For a classifier, the field with the class.")
    messages_field: str = setting("messages", "The field with a conversation; its last answer is the right one.")
    prompt_field: str = setting("prompt", "The field with a prompt, where there is no conversation.")
    prompt_template: Optional[str] = setting(
        None, "The text that is asked, in which {name} stands for the field of that name; without it as in training."
    )
    answer_field: str = setting(
        "completion", "The field with the right answer, or a list of right answers; may be missing."
    )
    set_field: str = setting("set", "The field with the name of the set that an example belongs to; may be missing.")
    json_answers: bool = setting(False, "The answers are JSON: json_exact, field_f1 and schema_compliance.")
    schema_field: Optional[str] = setting(None, "The field with an example's own JSON Schema.")
    schema: Optional[str] = setting(None, "A file with the JSON Schema of all answers.", kind="data")
    generate: bool = setting(True, "Ask language models for answers; without it only what needs none is measured.")
    asking: List[Asking] = setting([], "The ways to ask; without any, one with the defaults.")
    samples: int = setting(1, "Answers to each prompt.", ge=1)
    latency_examples: int = setting(4, "Examples that are also answered one at a time, to measure latency.", ge=0)
    max_length: Optional[int] = setting(
        None, "Tokens of an example in the loss; without it those of training, or all that the model can read.", ge=8
    )
    seed: int = setting(0, "Of sampling.", ge=0)
    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", "Where the models run.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto", "Of the weights; auto is bfloat16 on a GPU that computes in it, float32 elsewhere."
    )
