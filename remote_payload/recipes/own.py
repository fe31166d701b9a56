"""Runs a recipe of the user's own: the Python file of the job's code that ``recipe:`` names. Its function ``main(run)`` trains."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable

from remote_payload.train.errors import InputError
from remote_payload.train.run import OWN, Run, launch

NAME = "gpurun_own_recipe"  # of the module


def main(run: Run) -> None:
    """Imports the file, which may import its neighbours, and lets it train. Raises InputError when it has no ``main``."""
    body(run.recipe)(run)


def body(path: str) -> Callable[[Run], None]:
    """``main`` of the recipe file at ``path``, relative to the working directory, which is the job's code."""
    spec = importlib.util.spec_from_file_location(NAME, path)
    assert spec is not None and spec.loader is not None  # a path that ends with .py always has both
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module  # where dataclasses look up the names in annotations
    spec.loader.exec_module(module)
    found = getattr(module, "main", None)
    if not callable(found):
        raise InputError(f"{path}: there is no function main(run) in it, so nothing trains")
    train: Callable[[Run], None] = found
    return train


if __name__ == "__main__":
    launch(OWN, main)
