"""The local tool imports no package that it does not declare: one that another package brings may go away with its next version."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from tests.support.cli import REPOSITORY

OWN = {"runner", "remote_payload"}
PART_OF = {"pydantic-core": "pydantic"}  # released together, at one exact version


def imported(file: Path) -> set[str]:
    """Top-level packages that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return {name.partition(".")[0] for name in found}


def declared() -> set[str]:
    """Names of the distributions that pyproject.toml lists for the local tool, the smoke test's included."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *project["optional-dependencies"]["smoke"]]
    return {re.split(r"[<>=!~\[ ;]", each)[0].lower().replace("_", "-") for each in listed}


def test_every_package_that_the_local_tool_imports_is_declared() -> None:
    distributions = packages_distributions()
    missing = set()
    for file in (REPOSITORY / "runner").rglob("*.py"):
        for name in imported(file) - OWN - set(sys.stdlib_module_names):
            own = {each.lower().replace("_", "-") for each in distributions.get(name, [name])}
            if not {PART_OF.get(each, each) for each in own} & declared():
                missing.add(f"{file.relative_to(REPOSITORY)}: {name}")
    assert not missing
