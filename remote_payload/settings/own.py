"""A recipe of the user's own: a Python file of the job's code, named as ``recipe: ./my_recipe.py``.

Its settings (a dataclass ``Settings``) and its metrics (``METRICS = {name: higher_is_better}``) stand in that file beside the code that
trains. The laptop has no torch, so it cannot import the file. Both ends execute its *declarations* only: imports from
the modules in ``ALLOWED``, constants made of what was declared before, and dataclasses.
"""

import ast
import dataclasses
import functools
import os
import sys
import types
from typing import Any, Dict, List, NamedTuple

from remote_payload.settings.common import CommonSettings

ALLOWED = ("__future__", "collections", "dataclasses", "enum", "typing", "remote_payload.settings")
# What the training core reads of every recipe's settings.
COMMON = sorted(name for name in vars(CommonSettings) if not name.startswith("_"))


class Declarations(NamedTuple):
    """What a recipe can be told, and the metrics that it reports."""

    settings: Any
    metrics: Dict[str, bool]


class RecipeError(ValueError):
    """A recipe file that cannot be used. ``line`` is where, 0 for the whole file."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


def read_declarations(recipe: str, folder: str = ".") -> Declarations:
    """The declarations of the recipe file ``recipe``, a path relative to ``folder``. Raises RecipeError."""
    path = os.path.normpath(recipe)
    if os.path.isabs(path) or path.split(os.sep)[0] == "..":
        raise RecipeError("%s is not in the code folder, so it would not be sent" % recipe)
    try:
        with open(os.path.join(folder, path), encoding="utf-8") as file:
            source = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError("%s cannot be read: %s" % (recipe, getattr(error, "strerror", None) or error)) from None
    return _declarations(source, path)


@functools.lru_cache(maxsize=None)
def _declarations(source: str, path: str) -> Declarations:
    try:
        tree = ast.parse(source, path)
    except (SyntaxError, ValueError) as error:
        raise RecipeError("it is not Python: %s" % error, getattr(error, "lineno", None) or 0) from None
    module = types.ModuleType("gpurun_recipe_%x" % (hash((source, path)) & (1 << 64) - 1))
    sys.modules[module.__name__] = module  # where typing looks up the names in annotations
    for node in tree.body:
        if _is_declaration(node, vars(module)):
            _execute(node, path, vars(module))
    return _checked(module)


def _is_declaration(node: ast.stmt, known: Dict[str, Any]) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.level == 0 and _is_allowed(node.module or "")
    if isinstance(node, ast.Import):
        return all(_is_allowed(each.name) for each in node.names)
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        return node.value is not None and _is_constant(node.value, known)
    return isinstance(node, ast.ClassDef) and any(map(_is_dataclass, node.decorator_list))


def _is_allowed(module: str) -> bool:
    return any(module == each or module.startswith(each + ".") for each in ALLOWED)


def _is_constant(value: ast.expr, known: Dict[str, Any]) -> bool:
    """Whether an expression calls nothing and uses only names that were declared before."""
    parts = list(ast.walk(value))
    names = [part.id for part in parts if isinstance(part, ast.Name)]
    calls = any(isinstance(part, (ast.Call, ast.Attribute, ast.Await, ast.Lambda)) for part in parts)
    return not calls and all(name in known for name in names)


def _is_dataclass(decorator: ast.expr) -> bool:
    name = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (name.attr if isinstance(name, ast.Attribute) else getattr(name, "id", "")) == "dataclass"


def _execute(node: ast.stmt, path: str, names: Dict[str, Any]) -> None:
    flags = 0 if "annotations" not in names else getattr(names["annotations"], "compiler_flag", 0)
    try:
        exec(compile(ast.Module([node], []), path, "exec", flags, True), names)
    except Exception as error:
        what = "%s: %s" % (type(error).__name__, error)
        raise RecipeError(
            "%s. What Settings and METRICS are made of may only come from %s" % (what, ", ".join(ALLOWED[1:])),
            node.lineno,
        ) from None


def _checked(module: types.ModuleType) -> Declarations:
    settings, metrics = getattr(module, "Settings", None), getattr(module, "METRICS", None)
    if not (isinstance(settings, type) and dataclasses.is_dataclass(settings)):
        raise RecipeError("there is no dataclass Settings in it, which says what the job file may set")
    has = {field.name for field in dataclasses.fields(settings)}
    missing: List[str] = [name for name in COMMON if name not in has]
    if missing:
        raise RecipeError(
            "Settings has no %s: the training loop reads them (see remote_payload/settings/training.py)"
            % ", ".join(missing)
        )
    if not isinstance(metrics, dict) or not metrics or not all(isinstance(way, bool) for way in metrics.values()):
        raise RecipeError(
            'there is no METRICS in it, such as METRICS = {"loss": False}: names, and whether higher is better'
        )
    return Declarations(settings, metrics)
