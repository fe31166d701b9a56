"""From the files of an evaluation to its types. A file may be damaged, or written by a box that lies."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from remote_payload.recipes.evaluated import FORMAT, Column, Confusion, Evaluation
from runner.domain.answers.reading import (
    Fields,
    Impossible,
    boolean,
    finite_number,
    harmless,
    list_of,
    mapping_of,
    matching,
    optional,
    otherwise,
    string,
    text,
    whole,
    whole_between,
)

ROWS = re.compile(r"examples/[A-Za-z0-9][A-Za-z0-9._=-]{0,100}\.jsonl")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Example:
    """One example and what one model answered: ``asked`` the prompt or the text, ``right`` what the data says, both for people."""

    id: str
    set: str
    asked: str
    right: tuple[str, ...]
    answers: tuple[str, ...]
    metrics: dict[str, float]


def read_evaluation(value: object) -> Evaluation:
    """The summary. Raises Impossible naming a field that is not as it must be."""
    fields = Fields(value)
    fields("format", whole_between(FORMAT, FORMAT))
    settings = fields("settings", optional(mapping_of(harmless))) or {}
    return Evaluation(
        fields("data", text),
        fields("sha256", matching(SHA256)),
        fields("examples", whole),
        list(fields("columns", list_of(_column, 10_000))),
        settings,
    )


def _column(value: object) -> Column:
    fields = Fields(value)
    return Column(
        name=fields("name", text),
        model=fields("model", text),
        base=fields("base", boolean),
        asking=fields("asking", text),
        kind=fields("kind", text),
        device=fields("device", text),
        dtype=fields("dtype", text),
        rows=fields("rows", matching(ROWS)),
        metrics=_metrics(fields("metrics", mapping_of(optional(finite_number)))),
        sets={
            name: _metrics(each)
            for name, each in fields("sets", mapping_of(mapping_of(optional(finite_number)))).items()
        },
        confusion=fields("confusion", optional(_confusion)),
    )


def _metrics(found: dict[str, float | None]) -> dict[str, float]:
    """Without those that are null: a number that was not finite."""
    return {name: value for name, value in found.items() if value is not None}


def _confusion(value: object) -> Confusion:
    fields = Fields(value)
    return Confusion(
        list(fields("labels", list_of(text))), [list(row) for row in fields("counts", list_of(list_of(whole)))]
    )


def read_examples(lines: Iterable[str]) -> list[Example]:
    """The examples of one column. Raises Impossible naming the line."""
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(_example(json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise (error if isinstance(error, Impossible) else Impossible("not JSON")).inside(
                f"line {number}"
            ) from None
    return found


def _example(value: object) -> Example:
    fields = Fields(value)
    asked = fields("prompt", optional(string))
    if asked is not None:
        right = fields("right", list_of(string))
        answers = fields("answers", list_of(lambda each: Fields(each)("text", string)))
    else:
        asked = fields("text", string)
        label = fields("label", harmless)
        right, answers = () if label is None else (str(label),), (str(fields("answer", harmless)),)
    metrics = _metrics(fields("metrics", mapping_of(optional(finite_number))))
    return Example(fields("id", string), fields("set", otherwise("", string)), asked, right, answers, metrics)
