"""What git ignores. Git itself is asked: its rules (negation, anchors, nested files) are hard to repeat correctly."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from runner.domain.errors import UserError

_TIMEOUT = 120.0
# fsmonitor would run a program that the repository names.
_GIT = ("git", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false")


def ignored_by_git(folder: Path) -> set[str]:
    """Untracked paths below ``folder`` that git ignores; a folder that is ignored whole ends in ``/``.

    A tracked file is never among them, whatever matches it. Outside a repository .gitignore files count just the same. Raises UserError
    when git is needed and missing, or refuses.
    """
    inside = any((place / ".git").exists() for place in (folder, *folder.parents))
    if shutil.which("git") is None:
        if inside or (folder / ".gitignore").exists():
            raise UserError(
                f"git is not installed, and only git knows what {folder}/.gitignore leaves out.",
                meaning="Nothing was sent.",
                hint="Install git and repeat the command.",
            )
        return set()
    query = ("ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory")
    if inside:
        return set(_ask(folder, query))
    with tempfile.TemporaryDirectory(prefix="gpurun-git-") as empty:
        _ask(Path(empty), ("init", "--quiet", "--template="))
        return set(_ask(folder, (f"--git-dir={empty}/.git", "--work-tree=.", *query)))


def matching(patterns: Iterable[str], paths: Iterable[str]) -> set[str]:
    """Those of ``paths`` that the patterns (as in .gitignore, relative to the folder) match."""
    patterns, paths = list(patterns), list(paths)
    if not patterns or not paths:
        return set()
    with tempfile.TemporaryDirectory(prefix="gpurun-git-") as empty:
        # An empty work tree: no .gitignore of the user's takes part, and check-ignore does not ask whether a path exists.
        _ask(Path(empty), ("init", "--quiet", "--template="))
        Path(empty, ".git/info").mkdir(exist_ok=True)
        Path(empty, ".git/info/exclude").write_bytes(b"".join(os.fsencode(line) + b"\n" for line in patterns))
        query = ("-c", f"core.excludesFile={os.devnull}", "check-ignore", "--no-index", "-z", "--stdin")
        return set(_ask(Path(empty), query, b"\0".join(map(os.fsencode, paths)), allowed=(0, 1)))


def _ask(folder: Path, arguments: Iterable[str], stdin: bytes = b"", allowed: tuple[int, ...] = (0,)) -> list[str]:
    """The NUL-separated answer of a git command in ``folder``."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        answer = subprocess.run(
            [*_GIT, *arguments], cwd=folder, input=stdin, capture_output=True, timeout=_TIMEOUT, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"git cannot say what is ignored in {folder}: {error}", meaning="Nothing was sent.") from None
    if answer.returncode not in allowed:
        stderr = answer.stderr.decode("utf-8", "replace").strip()[:2000]
        raise UserError(
            f"git cannot tell what is ignored in {folder}: {stderr}",
            meaning="Nothing was sent.",
            hint="Run `git status` in that folder: it names the remedy.",
        )
    return [os.fsdecode(path) for path in answer.stdout.split(b"\0") if path]
