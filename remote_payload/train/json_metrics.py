"""How well generated text gives the JSON that was asked for: exactly, field by field, and by its schema."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema.validators import validator_for

from remote_payload.train.data import Record
from remote_payload.train.errors import InputError

OPENING = re.compile(r"[{\[]")
NOTHING = object()  # where no JSON could be read; unlike null, equal to nothing


def json_metrics(outputs: Sequence[str], expected: Sequence[Any], schemas: Sequence[Any]) -> dict[str, float]:
    """``json_exact``, ``field_f1`` and, where there are schemas, ``schema_compliance``: shares of 1 over the examples.

    ``json_exact``: the first JSON value in the output equals the expected one (the order of keys is of no importance).
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
        result["schema_compliance"] = _mean([float(complies(value, schema)) for value, schema in checked])
    return result


def read_answer(output: str, expected: Any) -> Any:
    """The JSON value that the output gives; its plain text where plain text was expected; NOTHING if it gives none."""
    value = first_json(output)
    if isinstance(as_value(expected), str) and not isinstance(value, str):
        return output.strip()
    return value


def first_json(text: str) -> Any:
    """The first JSON value of the text: all of it, or else the first object or array in it (models go on talking).

    A search goes on behind where the last one failed: what lies inside a cut-off object is no answer.
    """
    text = text.strip()
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    position = 0
    while opening := OPENING.search(text, position):
        try:
            return json.JSONDecoder().raw_decode(text, opening.start())[0]
        except json.JSONDecodeError as error:
            position = max(error.pos, opening.end())
        except RecursionError:
            break
    return NOTHING


def as_value(expected: Any) -> Any:
    """The expected value; an object or array that the data set keeps as text is read."""
    if not isinstance(expected, str):
        return expected
    try:
        value = json.loads(expected)
    except (ValueError, RecursionError):
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


def complies(value: Any, schema: Any) -> bool:
    """Whether the value validates against the schema."""
    return value is not NOTHING and validator_for(schema, default=Draft202012Validator)(schema).is_valid(value)


def read_schema(record: Record, field: str) -> Any:
    """The record's JSON Schema (an object, or the text of one), checked. Raises InputError with file, line and field."""
    schema = record.field(field, (dict, str, bool, type(None)))
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except json.JSONDecodeError as error:
            problem = f"{error.msg} (column {error.colno})"
            raise InputError(f"{record.place}: {field}: the schema is not valid JSON: {problem}") from None
    check_schema(schema, f"{record.place}: {field}")
    return schema


def check_schema(schema: Any, place: str) -> None:
    """Raises InputError naming ``place`` if this is no JSON Schema."""
    if schema is None:
        return
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except SchemaError as error:
        where = "/".join(map(str, error.absolute_path)) or "its top"
        raise InputError(f"{place}: not a JSON Schema: at {where}: {error.message}") from None


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """(path, leaf) pairs; an empty object or array is a leaf, and booleans are kept apart from numbers."""
    if isinstance(value, (dict, list)) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _leaves(item, (*path, key))
    elif isinstance(value, (dict, list)):
        yield path, type(value).__name__ + "()"
    else:
        yield path, (isinstance(value, bool), value)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
