"""How well generated text matches the expected JSON: exactly, field by field, and by its schema (docs/metrics.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from remote_payload.train.evaluation.json_answers import NOTHING, first_json, strict_json, without_thoughts
from remote_payload.train.evaluation.json_schemas import complies
from remote_payload.train.evaluation.json_schemas import read_schema as read_schema


def json_metrics(outputs: Sequence[str], expected: Sequence[Any], schemas: Sequence[Any]) -> dict[str, float]:
    """``json_exact``, ``field_f1`` and, where there are schemas, ``schema_compliance``: shares of 1 over the examples.

    ``json_exact``: the JSON value in the output (``read_answer``) equals the expected one (in any order of keys).
    ``field_f1``: F1 over pairs of path and leaf value, averaged over examples; an output without JSON has 0.
    ``schema_compliance``: the share of outputs that validate, of the examples whose schema is not None.
    """
    values = [read_answer(output, wanted) for output, wanted in zip(outputs, expected, strict=True)]
    wanted = [as_value(each) for each in expected]
    pairs = list(zip(values, wanted, strict=True))
    result = {
        "json_exact": _mean([float(same(value, target)) for value, target in pairs]),
        "field_f1": _mean([field_f1(value, target) for value, target in pairs]),
        "json_parses": _mean([float(value is not NOTHING) for value in values]),
    }
    checked = [(value, schema) for value, schema in zip(values, schemas, strict=True) if schema is not None]
    if checked:
        result["schema_compliance"] = _mean(
            [float(value is not NOTHING and complies(value, schema)) for value, schema in checked]
        )
    return result


def read_answer(output: str, expected: Any) -> Any:
    """The JSON value in the output; its plain text where plain text was expected; NOTHING if there is none."""
    wanted = as_value(expected)
    value = first_json(output, type(wanted) if isinstance(wanted, (dict, list)) else None)
    if isinstance(wanted, str) and not isinstance(value, str):
        return without_thoughts(output)
    return value


def as_value(expected: Any) -> Any:
    """The expected value. An object or array that the data set has as JSON text is parsed."""
    if not isinstance(expected, str):
        return expected
    try:
        value = strict_json(expected)
    except ValueError:
        return expected
    return value if isinstance(value, (dict, list)) else expected


def same(one: Any, other: Any) -> bool:
    """JSON's equality: 1 is 1.0, but true is not 1 as it is in Python."""
    return one is not NOTHING and dict(_leaves(one)) == dict(_leaves(other))


def field_f1(value: Any, expected: Any) -> float:
    """F1 of the (path, leaf) pairs of ``value`` against those of ``expected``."""
    if value is NOTHING:
        return 0.0
    found, wanted = Counter(_leaves(value)), Counter(_leaves(expected))
    return 2 * (found & wanted).total() / (found.total() + wanted.total())


def _leaves(value: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """(path, leaf) pairs; an empty object or array is a leaf, and booleans are kept apart from numbers."""
    # A list instead of recursion: a model's answer may be nested deeper than Python's stack.
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while waiting:
        path, part = waiting.pop()
        if isinstance(part, (dict, list)) and part:
            items = part.items() if isinstance(part, dict) else enumerate(part)
            waiting += [((*path, key), item) for key, item in items]
        elif isinstance(part, (dict, list)):
            yield path, type(part).__name__ + "()"
        else:
            yield path, (isinstance(part, bool), part)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
