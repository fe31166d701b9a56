"""Structured datasets: one JSON file with training documents and many named evaluation sets.

    {"document_dataset": {"docs": [{"id", "type", "prompt", "completion"}, …]},
     "eval_dataset_builders": {NAME: {"eval_points": [{"features": {"fields": {…}}, "few_shot_example_features": [{"fields": {…}}, …],
                                                       "fact_template": {"prompt", "completion"}, "constant_fields": {…}}, …],
                                      "metrics": [{"function_name"}, …]}},
     "metadata": {…}}

An evaluation point may also be just ``{"prompt", "completion"}``.
"""

from __future__ import annotations

import string
from collections import Counter
from dataclasses import dataclass
from typing import Any

from remote_payload.train.data.facts import DataFile, describe_file
from remote_payload.train.data.records import check_text, read_json
from remote_payload.train.errors import InputError

DOCUMENTS, EVALUATIONS = "document_dataset", "eval_dataset_builders"
COMPUTED = {"accuracy_and_loss"}


@dataclass(frozen=True)
class Example:
    """A text in two parts: the prompt that is given, and the completion to learn. A plain document has an empty prompt."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class StructuredDataset:
    """The content of the file."""

    documents: list[Example]
    evaluations: dict[str, list[Example]]  # by the name of the evaluation set
    file: DataFile
    left_out: dict[
        str, int
    ]  # metrics that the file asks for and that are not computed, with the number of sets that ask


def read_structured(path: str) -> StructuredDataset:
    """Reads and checks the whole file. Raises InputError with the file and the place inside it."""
    content = _expect(read_json(path), dict, path)
    check_text(content, path)
    documents = [
        _example(item, f"{path}: {DOCUMENTS}.docs[{index}]")
        for index, item in enumerate(_list(_part(content, DOCUMENTS, dict, path), "docs", f"{path}: {DOCUMENTS}"))
    ]
    builders = _part(content, EVALUATIONS, dict, path)
    evaluations = {name: _evaluation(builder, f"{path}: {EVALUATIONS}.{name}") for name, builder in builders.items()}
    if not evaluations:
        raise InputError(f"{path}: {EVALUATIONS}: no evaluation sets")
    return StructuredDataset(documents, evaluations, describe_file(path, len(documents)), _left_out(builders))


def _evaluation(builder: Any, place: str) -> list[Example]:
    points = _list(_expect(builder, dict, place), "eval_points", place)
    return [_point(point, f"{place}.eval_points[{index}]") for index, point in enumerate(points)]


def _point(point: Any, place: str) -> Example:
    """A question as its template asks it: first complete examples of other entities, one a line, then the one to complete."""
    point = _expect(point, dict, place)
    if "fact_template" not in point:
        return _example(point, place)
    template = _example(point["fact_template"], f"{place}.fact_template")
    constants = _part(point, "constant_fields", dict, place) if "constant_fields" in point else {}
    shots = _expect(point.get("few_shot_example_features") or [], list, f"{place}.few_shot_example_features")
    worked = [
        _fill(template.prompt + template.completion, _fields(shot, constants, where), where)
        for where, shot in ((f"{place}.few_shot_example_features[{index}]", shot) for index, shot in enumerate(shots))
    ]
    fields = _fields(point.get("features"), constants, f"{place}.features")
    prompt = "\n".join([*worked, _fill(template.prompt, fields, place)])
    return _with_completion(Example(prompt, _fill(template.completion, fields, place)), place)


def _fields(features: Any, constants: dict[str, Any], place: str) -> dict[str, Any]:
    return {**_part(_expect(features, dict, place), "fields", dict, place), **constants}


def _fill(template: str, fields: dict[str, Any], place: str) -> str:
    """The template with its ``{names}`` replaced. Only names: str.format would also follow attributes and indices."""
    parts = []
    try:
        for text, name, form, conversion in string.Formatter().parse(template):
            parts.append(text)
            if name is not None:
                if form or conversion or name not in fields:
                    raise InputError(f"{place}: no field {name!r} (there are {', '.join(fields)})")
                parts.append(str(fields[name]))
    except ValueError as error:
        raise InputError(f"{place}: the template {template!r} cannot be read: {error}") from None
    return "".join(parts)


def _example(item: Any, place: str) -> Example:
    item = _expect(item, dict, place)
    prompt = item.get("prompt", "")
    completion = _part(item, "completion", str, place)
    return _with_completion(Example(_expect(prompt, str, f"{place}.prompt"), completion), place)


def _with_completion(example: Example, place: str) -> Example:
    """The example. Raises InputError when there is nothing in it to learn."""
    if not example.completion:
        raise InputError(f"{place}.completion: is empty")
    return example


def _list(mapping: dict[str, Any], name: str, place: str) -> list[Any]:
    items: list[Any] = _part(mapping, name, list, place)
    if not items:
        raise InputError(f"{place}.{name}: is empty")
    return items


def _part(mapping: dict[str, Any], name: str, kind: type, place: str) -> Any:
    if name not in mapping:
        raise InputError(f"{place}: no {name!r} (there is {', '.join(map(str, mapping)) or 'nothing'})")
    return _expect(mapping[name], kind, f"{place}.{name}")


def _expect(value: Any, kind: type, place: str) -> Any:
    if not isinstance(value, kind):
        raise InputError(f"{place}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _left_out(builders: dict[str, Any]) -> dict[str, int]:
    asked: Counter[str] = Counter()
    for builder in builders.values():
        metrics = builder.get("metrics")
        named = (
            {str(each.get("function_name") or "") for each in metrics if isinstance(each, dict)}
            if isinstance(metrics, list)
            else set()
        )
        asked.update(name for name in named - COMPUTED if name)
    return dict(asked)
