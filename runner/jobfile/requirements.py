"""``environment.requirements``: a file or a list → the lines that the box installs.

Requirements go into an environment that runs share, so whatever is a path on this machine has no place in them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from runner.jobfile.folder_checks import FolderChecks
from runner.jobfile.problems import Place, quoted
from runner.jobfile.tree import Node

MAX_BYTES = 1 << 20
_FILE = re.compile(r"(?:-r|--requirement)(?:\s+|=)(.+)")
_REFUSED = {
    (
        "-e",
        "--editable",
    ): "installs a folder: the code lies in the run's working directory anyway, so leave the line out",
    ("-c", "--constraint"): "constraint files are not read: write the versions into the requirements",
    ("./", "../", "/", "~", "file:", "--find-links", "-f"): "is a path of this machine, which the box does not have",
}
_LOCAL = re.compile(r"@\s*file:")
_PASSWORD = re.compile(r"://[^/\s@]*:[^/\s@]+@")


def refusal(line: str) -> str | None:
    """Why a requirement cannot be installed on a box, or None."""
    for beginnings, why in _REFUSED.items():
        if line.startswith(beginnings) or ("file:" in beginnings and _LOCAL.search(line)):
            return f"{quoted(line)} {why}"
    return "an address with a password in it would be kept on the box" if _PASSWORD.search(line) else None


def without_comment(line: str) -> str:
    """A line of a requirements file as pip reads it."""
    return re.sub(r"(^|\s)#.*$", "", line).strip()


class RequirementsReader:
    """Expands the lines of one job, each file at most once."""

    def __init__(self, checks: FolderChecks) -> None:
        self.checks = checks
        self.files: set[Path] = set()

    def read(self, node: Node | None) -> tuple[str, ...]:
        """The requirement lines that the ``requirements`` node stands for. What is wrong goes to the checks."""
        name = "environment.requirements"
        if node is None:
            return ()
        if node.kind == "scalar":
            return tuple(self._file(node.text, node.place, name)) if isinstance(node.value, str) else ()
        lines: list[str] = []
        for index, item in enumerate(node.items):
            if isinstance(item.value, str):
                lines += self._line(item.value, item.place, f"{name}[{index}]")
        return tuple(lines)

    def _file(self, written: str, place: Place, name: str, file: str = "") -> list[str]:
        """The lines of a requirements file that is named at ``place`` (of ``file``; of the job file where that is empty)."""
        found = self.checks.inside(written, place, name, file)
        if found is None or found in self.files:
            return []
        self.files.add(found)
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
        for number, line in enumerate(text.splitlines(), start=1):
            lines += self._line(line, Place(number, 1), "requirements", str(found))
        return lines

    def _line(self, line: str, place: Place, name: str, file: str = "") -> list[str]:
        """A requirement as it is, an included file's lines, or nothing for a comment and for what is refused."""
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
