"""``environment.requirements``: a file or a list → the lines that the box installs.

Requirements go into an environment that runs share, so whatever is a path on this machine has no place in them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from runner.domain.flow import flow
from runner.jobfile.folder_checks import FolderChecks
from runner.jobfile.problems import Place, quoted
from runner.jobfile.requirement_lines import is_requirement, refusal
from runner.jobfile.tree import Node

MAX_BYTES = 1 << 20
_FILE = re.compile(r"(?:-r|--requirement)(?:\s+|=)(.+)")
# Files that other tools than pip read.
_OTHERS = {
    ".yml": "a conda file",
    ".yaml": "a conda file",
    ".toml": "a project file",
    ".lock": "a lock file of another tool",
    ".cfg": "a project file",
    ".py": "a Python file",
    ".json": "a file of another tool",
}
MAX_WRONG = 5  # lines of one file; the rest are of the same kind


def without_comment(line: str) -> str:
    """A line of a requirements file as pip reads it."""
    return re.sub(r"(^|\s)#.*$", "", line).strip()


def _joined(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a requirements file with their numbers, those that end in a backslash with the next."""
    whole, begun = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        begun = begun or number
        whole += line
        if whole.endswith("\\"):
            whole = whole[:-1] + " "
        else:
            yield begun, whole
            whole, begun = "", 0
    if whole:
        yield begun, whole


class RequirementsReader:
    """Expands the lines of one job, each file at most once."""

    def __init__(self, checks: FolderChecks) -> None:
        self.checks = checks
        self.files: set[Path] = set()
        self.wrong = 0  # lines of files

    def read(self, node: Node | None) -> tuple[str, ...]:
        """The requirement lines that the ``requirements`` node stands for. Problems are added to the checks."""
        name = "environment.requirements"
        if node is None:
            return ()
        if node.kind == "scalar":
            return tuple(self._named(node, name)) if isinstance(node.value, str) else ()
        lines: list[str] = []
        for index, item in enumerate(node.items):
            if isinstance(item.value, str):
                lines += self._line(item.value, item.place, f"{name}[{index}]")
        return tuple(lines)

    def _named(self, node: Node, name: str) -> list[str]:
        """The lines of the file that is named, or a problem for packages that stand where its name belongs."""
        lines = [line for line in map(without_comment, node.text.splitlines()) if line]
        packages_named = lines if len(lines) > 1 else node.text.split()
        packages = (
            bool(packages_named)
            and all(map(is_requirement, packages_named))
            and not node.text.endswith((".txt", ".in"))
        )
        if packages and not (self.checks.folder / node.text).exists() and Path(node.text).suffix not in _OTHERS:
            message = f"{name}: there is no file {quoted(node.text)}; packages are a list: write {flow(packages_named)}"
            self.checks.problem(node.place, message)
            return []
        return self._file(node.text, node.place, name)

    def _file(self, written: str, place: Place, name: str, file: str = "") -> list[str]:
        """The lines of a requirements file that is named at ``place`` (of ``file``; of the job file where that is empty)."""
        found = self.checks.inside(written, place, name, file)
        if found is None or found in self.files:
            return []
        self.files.add(found)
        if kind := _OTHERS.get(found.suffix):
            message = (
                f"{name}: {quoted(written)} is {kind}: name a requirements.txt, or a list such as [torch, transformers]"
            )
            self.checks.problem(place, message, file)
            return []
        try:
            with found.open("rb") as opened:
                content = opened.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                raise ValueError("it is larger than 1 MiB")
            text = content.decode("utf-8-sig")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            self.checks.problem(place, f"{name}: {quoted(written)} is not a readable text file: {why}", file)
            return []
        lines: list[str] = []
        for number, line in _joined(text):
            before = len(self.checks.problems)
            lines += self._line(line, Place(number, 1), "requirements", str(found))
            self.wrong += len(self.checks.problems) > before
            if self.wrong >= MAX_WRONG:
                break
        return lines

    def _line(self, line: str, place: Place, name: str, file: str = "") -> list[str]:
        """A requirement as it is, an included file's lines, or nothing for a comment and a refused line."""
        line = without_comment(line)
        if not line:
            return []
        included = _FILE.fullmatch(line)
        if included is not None:
            beside = Path(file).parent.relative_to(self.checks.folder) if file else Path()
            return self._file(os.path.normpath(beside / included[1].strip()), place, name, file)
        why = refusal(line)
        if why is not None:
            self.checks.problem(place, f"{name}: {why}", file)
        return [] if why else [line]
