"""A job file checked against the types: the Job's own fields, and its recipe's settings."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import asdict, replace
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from remote_payload.settings import RECIPES, USES, settings_class
from remote_payload.settings.own import RecipeError
from runner.domain import job as job_types
from runner.domain.job import RECIPE_OUTPUTS, Job, Settings, Slurm
from runner.jobfile.problems import Place, Problem, quoted, suggestion
from runner.jobfile.schema_parts import Schema, closed, describe, properties
from runner.jobfile.settings.metric import check_metric
from runner.jobfile.settings.types import checkable
from runner.jobfile.tree import Entry, Node
from runner.jobfile.typing_errors import dotted, translate

# Fields whose scalars are text as it is written: `python: 3.10` is not 3.1, `[train.py, --lr, 3e-4]` are words. "*" is any key or index.
_TEXT = (
    ("name",),
    ("command", "*"),
    ("data", "*"),
    ("data", "*", "path"),
    ("data", "*", "as"),
    ("outputs", "*"),
    ("checkpoints", "pattern"),
    ("progress", "*"),
    ("environment", "python"),
    ("environment", "variables", "*"),
    *(("slurm", each.name) for each in fields_of(Slurm) if "Slurm" in str(each.type)),
)
# Lists of names, where one name alone is a list of one.
ONE_OR_MORE = (
    ("data",),
    ("outputs",),
    ("secrets",),
    ("progress",),
    ("hub", "models"),
    ("code", "include"),
    ("code", "exclude"),
)


@functools.cache
def job_adapter() -> TypeAdapter[Job]:
    return TypeAdapter(Job)


@functools.cache
def job_schema() -> Schema:
    schema = closed(job_adapter().json_schema())
    for each in fields_of(Job):
        if not each.init:  # where a job was read from
            del schema["properties"][each.name]
    describe(schema, job_types)
    for keys in ONE_OR_MORE:
        fields = properties(schema, keys[:-1])
        written = fields[keys[-1]]
        alone = {"anyOf": [{"type": "string"}, {key: value for key, value in written.items() if key != "description"}]}
        fields[keys[-1]] = {**alone, "description": written["description"]}
    return schema


@functools.cache
def settings_adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(checkable(kind))


@functools.cache
def settings_schema(kind: type) -> Schema:
    return closed(settings_adapter(kind).json_schema())


def with_lists(tree: Node) -> Node:
    """The tree with every single name where a list of names belongs (``outputs: models``) as a list of one."""
    for keys in ONE_OR_MORE:
        node = tree.get(*keys)
        if node is not None and node.kind == "scalar" and node.value is not None:
            tree = _replaced(tree, keys, Node(node.place, "list", items=(node,)))
    return tree


def _replaced(tree: Node, keys: tuple[str, ...], node: Node) -> Node:
    entry = tree.entries[keys[0]]
    inner = _replaced(entry.node, keys[1:], node) if keys[1:] else node
    return replace(tree, entries={**tree.entries, keys[0]: replace(entry, node=inner)})


def _everywhere(settings: type | None) -> Schema:
    """The schema of a whole job with its recipe's settings in it, so that a message for a misplaced key can name its place."""
    schema = job_schema()
    if settings is None:
        return schema
    own = settings_schema(settings)
    fields = {**schema["properties"], "settings": {key: value for key, value in own.items() if key != "$defs"}}
    return {**schema, "properties": fields, "$defs": {**schema.get("$defs", {}), **own.get("$defs", {})}}


def _recipe_settings(tree: Node, path: str, folder: Path) -> tuple[type | None, list[Problem]]:
    """The dataclass of the recipe's settings, None for a command; and the problems of the recipe's name or file."""
    recipe = tree.get("recipe")
    if recipe is None or not isinstance(recipe.value, str):
        return None, []  # the check of the Job's own fields reports it
    try:
        if recipe.value in USES:
            raise KeyError(recipe.value)  # a command of gpurun's own writes such jobs
        return settings_class(recipe.value, str(folder)), []
    except KeyError:
        near = (
            suggestion(recipe.value, RECIPES) or f": there are {', '.join(RECIPES)}, or a file such as ./my_recipe.py"
        )
        return None, [Problem(path, recipe.place, f"there is no recipe {quoted(recipe.value)}{near}")]
    except RecipeError as error:
        if error.line:
            return None, [Problem(str(folder / recipe.value), Place(error.line), str(error))]
        return None, [Problem(path, recipe.place, f"recipe: {error}")]


def check_fields(tree: Node, path: str, folder: Path) -> tuple[Job | None, list[Problem]]:
    """The Job that the tree describes, its settings completed; or None with every problem of types, keys and values.

    ``folder`` is the job's code folder, which a recipe of the user's own is in.
    """
    plain, problems = _plain(tree, path)
    known_bad = {problem.place for problem in problems}
    kind, wrong = _recipe_settings(tree, path, folder)
    settings, wrong_settings = _settings(tree, plain, kind, path, folder)
    wrong += wrong_settings
    job = None
    try:
        complete = json.dumps({**plain, "settings": settings or {}})
        job = job_adapter().validate_json(complete, strict=True, extra="forbid")
    except ValidationError as error:
        wrong += translate(error.errors(include_url=False), tree, _everywhere(kind), path)
    problems += [problem for problem in wrong if problem.place not in known_bad]
    if job is None or problems:
        return None, problems
    if job.outputs is None:
        job = replace(job, outputs=RECIPE_OUTPUTS if job.recipe else ())
    return job, problems


def _plain(tree: Node, path: str) -> tuple[dict[str, object], list[Problem]]:
    """The tree as dicts and lists for JSON, which has no infinity."""
    problems: list[Problem] = []

    def convert(node: Node, keys: tuple[str | int, ...]) -> object:
        if node.kind == "mapping":
            return {key: convert(entry.node, (*keys, key)) for key, entry in node.entries.items()}
        if node.kind == "list":
            return [convert(item, (*keys, index)) for index, item in enumerate(node.items)]
        if node.value is not None and _is_text(keys):
            return node.text
        if isinstance(node.value, float) and not math.isfinite(node.value):
            problems.append(
                Problem(path, node.place, f"{dotted(keys)} must be a finite number, not {quoted(node.text)}")
            )
            return 0.0
        return node.value

    return {key: convert(entry.node, (key,)) for key, entry in tree.entries.items()}, problems


def _is_text(keys: tuple[str | int, ...]) -> bool:
    return any(
        len(keys) == len(pattern) and all(want in ("*", key) for want, key in zip(pattern, keys, strict=True))
        for pattern in _TEXT
    )


def _settings(
    tree: Node, plain: dict[str, object], kind: type | None, path: str, folder: Path
) -> tuple[Settings | None, list[Problem]]:
    """The recipe's settings, of the dataclass ``kind``, with its defaults; and their problems."""
    recipe, written = tree.get("recipe"), tree.get("settings")
    if recipe is None:
        if written is not None and tree.get("command") is not None:
            place = tree.key_place("settings")
            return None, [
                Problem(path, place, "settings are a recipe's: give your own program its options in command:")
            ]
        return None, []
    if kind is None:
        return None, []
    if written is None or written.plain() is None:  # the recipe may require settings
        place = tree.key_place("settings" if written else "recipe")
        tree = replace(tree, entries={**tree.entries, "settings": Entry("settings", place, Node(place, "mapping"))})
    elif written.kind != "mapping":
        message = f"settings must be a mapping (key: value lines), not {quoted(written.plain())}"
        return None, [Problem(path, written.place, message)]
    adapter = settings_adapter(kind)
    try:
        settings = adapter.validate_json(json.dumps(plain.get("settings") or {}), strict=True, extra="forbid")
    except ValidationError as error:
        errors = error.errors(include_url=False)
        for part in errors:
            part["loc"] = ("settings", *part["loc"])
        return None, translate(errors, tree, _everywhere(kind), path)
    completed = asdict(settings)
    return completed, check_metric(recipe.text, completed, tree, path, folder)
