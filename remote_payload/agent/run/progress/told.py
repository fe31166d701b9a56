"""What a line tells: the fields of an event ``step``, and the metrics of an evaluation. Pure."""

import math
import re
from typing import Dict, Iterable, NamedTuple, Optional, Tuple, Union

Number = Union[int, float, None]  # None: not finite, as an event has it
Fields = Dict[str, Number]

MOST_FIELDS = 32
LONGEST_NAME = 64
NUMBER = r"[-+]?(?:\d[\d,]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|NaN|inf(?:inity)?|Infinity)\b"
_COUNT = re.compile(r"(\d[\d,_]*(?:\.\d+)?)([kMGT]?)")
_SCALES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SAME = {
    "loss": ("train_loss", "training_loss", "train/loss", "loss/train", "train_loss_step", "loss_step"),
    "lr": ("learning_rate",),
    "grad_norm": ("norm", "gnorm", "gradient_norm"),
    "tokens_per_second": ("tok/s", "tok/sec", "tokens/s", "tokens/sec", "tok_per_sec", "tokens_per_sec", "tps"),
    "accuracy": ("acc",),
    "steps_per_second": ("it/s", "steps/s", "steps/sec"),
    "seconds_per_step": ("s/it", "s/step", "sec/step"),
}
CALLED = {other: name for name, others in _SAME.items() for other in others}
EVALUATION = re.compile(r"(val|valid|validation|eval|test)[_/]")
# What the Trainer says of the time of an evaluation.
_NOT_MEASURED = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
RESERVED = ("t", "type", "name", "metrics", "log")  # fields of events that are no numbers of a step


NOTHING: Fields = {}


class Told(NamedTuple):
    """``step``: fields of an event ``step``; ``evaluation``: metrics of one, ``name`` what they begin with (``val``). Either may be empty.

    ``grows``: the next line may tell more of the same step, as a bar does that is drawn again.
    """

    step: Fields = NOTHING
    evaluation: Fields = NOTHING
    name: str = "eval"
    grows: bool = False


def number(text: str) -> Optional[Number]:
    """A number as a program prints it: ``1,234``, ``3e-4``, ``nan`` (which an event has as null). None is no answer for other text: see
    ``is_number``."""
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return None
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and re.fullmatch(r"[-+]?[\d,]+", text) else value


def is_number(text: str) -> bool:
    """Whether the whole text is one number."""
    return bool(re.fullmatch(NUMBER, text))


def count(text: str) -> Optional[int]:
    """A whole number, with thousands as ``1,200``, ``1_200`` or ``1.20k``; None for other text or an absurd one."""
    found = _COUNT.fullmatch(text.strip())
    if found is None or len(text) > 24:
        return None
    return round(float(re.sub("[,_]", "", found.group(1))) * _SCALES[found.group(2)])


def sort(pairs: Iterable[Tuple[str, str]]) -> Told:
    """Names and numbers of one line, each under the name that events have for it. What is no number is left out."""
    step: Fields = {}
    evaluation: Fields = {}
    prefix = ""
    for written, text in pairs:
        name = re.sub(r"\s+", "_", written.strip().lower())[:LONGEST_NAME]
        if not is_number(text.strip()) or name in RESERVED or len(step) + len(evaluation) >= MOST_FIELDS:
            continue
        value = number(text.strip())
        begins = EVALUATION.match(name)
        if begins:
            prefix = prefix or begins.group(1)
            if name[begins.end() :] not in _NOT_MEASURED:
                evaluation[CALLED.get(name[begins.end() :], name[begins.end() :])] = value
        else:
            step[CALLED.get(name, name)] = value
    return Told(with_ms(step), evaluation, prefix or "eval")


def with_ms(step: Fields) -> Fields:
    """Milliseconds of a step in place of seconds, or of steps a second."""
    seconds, pace = step.pop("seconds_per_step", None), step.pop("steps_per_second", None)
    if seconds is None and pace:
        seconds = 1 / pace
    if seconds and "ms" not in step:
        step["ms"] = round(1000 * seconds, 3)
    return step
