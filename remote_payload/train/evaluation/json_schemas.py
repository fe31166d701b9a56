"""JSON Schemas: checked before training starts, and then used to validate the answers of a model.

References are resolved inside the schema and among the published drafts, never over the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema.validators import validator_for
from jsonschema_specifications import REGISTRY
from referencing import Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from remote_payload.train.data.records import Record
from remote_payload.train.errors import InputError
from remote_payload.train.evaluation.json_answers import strict_json

REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
LISTS, ONE, MAPPINGS = ("allOf", "anyOf", "oneOf"), ("not", "if", "then", "else"), ("dependentSchemas",)


def read_schema(record: Record, field: str) -> Any:
    """The record's JSON Schema (an object, or the text of one), checked. Raises InputError with file, line and field."""
    schema = record.field(field, (dict, str, bool, type(None)))
    if isinstance(schema, str):
        try:
            schema = strict_json(schema)
        except ValueError as error:
            raise InputError(f"{record.place}: {field}: the schema is not valid JSON: {error}") from None
    check_schema(schema, f"{record.place}: {field}")
    return schema


def check_schema(schema: Any, place: str) -> None:
    """Raises InputError naming ``place`` if this is no valid schema, or if one of its references cannot be resolved."""
    if schema is None:
        return
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
        resource = Resource.from_contents(schema, default_specification=DRAFT202012)
        _check_part(resource, REGISTRY.resolver_with_root(resource), set(), place)
    except SchemaError as error:
        where = "/".join(map(str, error.absolute_path)) or "its top"
        raise InputError(f"{place}: not a JSON Schema: at {where}: {error.message}") from None
    except RecursionError:
        raise InputError(f"{place}: not a usable JSON Schema: nested too deeply") from None


def complies(value: Any, schema: Any) -> bool:
    """Whether the value is valid by the schema. A value on which the validator itself fails is not."""
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        return bool(kind(schema, registry=REGISTRY).is_valid(value))
    except Exception:  # a number too large for a float, a value nested too deeply: no reason to lose a trained model
        return False


def _check_part(resource: Any, resolver: Any, done: set[int], place: str) -> None:
    """Follows every reference of the schema and of all schemas in it."""
    schema = resource.contents
    if not isinstance(schema, dict):
        return
    _check_loop(schema, resolver, [], done, place)
    for part in resource.subresources():
        _check_part(part, resolver.in_subresource(part), done, place)


def _check_loop(schema: Any, resolver: Any, above: list[int], done: set[int], place: str) -> None:
    """Raises InputError for a schema that refers to itself for the same value: a validator would never end."""
    if not isinstance(schema, dict) or id(schema) in done:
        return
    if id(schema) in above:
        raise InputError(f"{place}: not a usable JSON Schema: a $ref that leads back to itself about the same value")
    for part, its_resolver in _about_the_same_value(schema, resolver, place):
        _check_loop(part, its_resolver, [*above, id(schema)], done, place)
    done.add(id(schema))


def _about_the_same_value(schema: dict[str, Any], resolver: Any, place: str) -> Iterator[tuple[Any, Any]]:
    """The schemas, each with its resolver, that this schema applies to the same value."""
    for name in REFERENCES:
        if isinstance(schema.get(name), str):
            try:
                found = resolver.lookup(schema[name])
            except Unresolvable:
                raise InputError(f"{place}: not a usable JSON Schema: {name} {schema[name]!r} leads nowhere") from None
            yield found.contents, found.resolver
    for name in LISTS:
        yield from ((part, resolver) for part in schema.get(name) or ())
    for name in ONE:
        yield schema.get(name), resolver
    for name in MAPPINGS:
        yield from ((part, resolver) for part in (schema.get(name) or {}).values())
