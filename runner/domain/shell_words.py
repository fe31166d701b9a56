"""A command line as the words of a job's ``command``: split into words, or given to bash where only a shell can run it."""

from __future__ import annotations

import re
import shlex

# Words that are operators of a shell.
OPERATORS = frozenset(("&&", "||", "|", ";", "&", ">", ">>", "<", "<<", "2>&1", "2>", "&>", "1>", "|&", "2>>", "&>>"))
BUILTINS = frozenset(
    ("cd", "source", ".", "export", "set", "unset", "alias", "ulimit", "umask", "eval", "pushd", "module")
)
ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
EXPANDED = re.compile(r"\$(?:\{|\(|[A-Za-z_])|`")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_SPECIAL = re.compile(r"[|&;<>\n*]|(?:^|\s)~")
_BARE = re.compile(r"[A-Za-z0-9_@%+=:,./$~*?{}\[\]-]+")


def split(line: str) -> list[str]:
    """``python train.py --lr 1`` as its words; ``[bash, -c, …]`` (``-ec`` for several lines) for a line that only a shell can run."""
    line = line.strip()
    if needs_shell(line):
        return ["bash", "-ec" if "\n" in line else "-c", line]
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def needs_shell(line: str) -> bool:
    """Whether a command line uses what only a shell can do: operators, patterns, variables, builtins, several lines."""
    first = line.split(maxsplit=1)[0] if line.strip() else ""
    outside = _QUOTED.sub("", line)
    return bool(_SPECIAL.search(outside) or EXPANDED.search(line) or first in BUILTINS or ASSIGNMENT.fullmatch(first))


def join(words: list[str]) -> str:
    """Words as a line for a shell. Operators and words that a shell expands are not quoted."""
    return " ".join(word if word in OPERATORS or _BARE.fullmatch(word) else shlex.quote(word) for word in words)
