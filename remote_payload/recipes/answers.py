"""What ``sample`` prints, one JSON object a line. The laptop reads the same types, so this module needs no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Annotated

# How the laptop reads a field (``runner/domain/answers/typed.py``): other text is cleaned for a terminal, and cut.
Verbatim = Annotated[str, "verbatim"]
Seconds = Annotated[float, "seconds"]


@dataclass(frozen=True)
class Loaded:
    """The model that was loaded: the name of its folder, its kind, and of a checkpoint the step and the metrics.

    ``chat`` is true for a language model that is asked in a chat template, which has a place for a system message. ``threshold`` is a
    classifier's: classes from that number on are positive.
    """

    model: str
    kind: str
    device: str
    chat: bool = False
    threshold: int | None = None
    step: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """One text that was generated; ``base`` says whether by the model that training began with, ``sample`` counts from 1.

    ``tokens`` counts the generated tokens, ``seconds`` is the time for all of them. ``ended`` is true when the model chose its
    end token, false when the longest allowed answer was reached.
    """

    base: bool
    sample: int
    text: Verbatim
    tokens: int
    seconds: Seconds
    ended: bool


@dataclass(frozen=True)
class Classified:
    """What a classifier says of a text: the most probable class, and the probability of each by name.

    ``positive`` says whether that class is at least the threshold, ``positive_probability`` is the sum over such classes; both are None
    for a model without a threshold. ``cut`` is true for a text that is longer than the model takes.
    """

    prediction: Verbatim
    probability: float
    probabilities: dict[str, float]
    positive: bool | None
    positive_probability: float | None
    cut: bool
    seconds: Seconds


@dataclass(frozen=True)
class Answered:
    """All that came of one prompt: a language model's ``answers``, for each sample the base's before the tuned model's; or what a
    classifier found."""

    prompt: Verbatim
    answers: tuple[Answer, ...] = ()
    classified: Classified | None = None


LOADED, ANSWERED = "loaded", "answered"


def to_line(message: Loaded | Answered) -> str:
    """The message as one line of JSON, without the line break."""
    return json.dumps({LOADED if isinstance(message, Loaded) else ANSWERED: asdict(message)}, ensure_ascii=False)


def error_line(message: str) -> str:
    """The line that is printed instead of an answer when the model cannot be loaded or asked."""
    return json.dumps({"error": {"message": message}}, ensure_ascii=False)
