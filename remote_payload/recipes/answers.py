"""What ``sample`` prints, one JSON object a line. The laptop reads the same types, so this module needs no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Loaded:
    """The model that was loaded: the name of its folder, and of a checkpoint the step and the metrics.

    ``base`` is true when it is the model that training began with.
    """

    model: str
    base: bool
    device: str
    step: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What the model generated for one prompt.

    ``tokens`` counts the generated tokens, ``seconds`` is the time for all of them. ``ended`` is true when the model chose its
    end token, false when the longest allowed answer was reached.
    """

    prompt: str
    text: str
    tokens: int
    seconds: float
    ended: bool


def to_line(message: Loaded | Answer) -> str:
    """The message as one line of JSON, without the line break."""
    value = asdict(message)
    return json.dumps({"loaded": value} if isinstance(message, Loaded) else value, ensure_ascii=False)


def error_line(message: str) -> str:
    """The line that is printed instead of an answer when the model cannot be loaded or asked."""
    return json.dumps({"error": message}, ensure_ascii=False)
