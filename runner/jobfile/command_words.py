"""Checks of the words of ``command:``: shell syntax, two words in one, and a script that does not exist.

No shell reads these words, so such would fail on the box, after the push. A script of several lines is bash's own.
"""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import PurePosixPath

from runner.domain import shell_words
from runner.domain.flow import flow
from runner.domain.job_fields import RESERVED_VARIABLES
from runner.jobfile.folder_checks import FolderChecks
from runner.jobfile.problems import quoted
from runner.jobfile.tree import Node
from runner.jobfile.unknown_keys import BLANKS

_INTERPRETERS = ("python", "python3", "torchrun", "accelerate", "deepspeed")
_SHELLS = ("sh", "bash", "zsh", "dash", "fish")
_SCRIPTS = {".py": "python", ".sh": "bash"}
_OPTION_AND_VALUE = re.compile(r"(--?[A-Za-z][\w-]*)\s+(\S.*)")
_QUOTES = "“”„‘’‚«»"
_DASHES = "–—−"


def check_command(checks: FolderChecks) -> None:
    """Reports each wrong word of the job's command at its place."""
    command = checks.tree.get("command")
    if command is None or command.kind != "list" or not command.items:
        return
    words = [item for item in command.items if item.kind == "scalar" and item.value is not None]
    if len(words) < len(command.items):
        return  # check_fields reports it
    if not (_is_shell_line(checks, words) or _has_typography(checks, words)):
        _check_program(checks, words)
        _check_options(checks, words)
        _check_script(checks, words)


def _is_shell_line(checks: FolderChecks, words: list[Node]) -> bool:
    """Whether this is a shell's line split into words, after reporting it. ``[cut, -d, ";"]`` is not: ``;`` is the value of an option."""
    texts = [word.text for word in words]
    if _program(texts[0]) in _SHELLS:
        return False
    line = shell_words.join(texts)
    if texts[0] in shell_words.BUILTINS:
        _problem(
            checks, words[0], 0, f"{quoted(texts[0])} is a shell's own command: write {flow(['bash', '-c', line])}"
        )
        return True
    for index, (before, word) in enumerate(zip(texts, words[1:], strict=False), start=1):
        unmistakable = word.text in ("&&", "||", "2>&1", "&>")
        if word.text in shell_words.OPERATORS and (unmistakable or not before.startswith("-")):
            if index == len(texts) - 1 and word.text == "&":
                _problem(checks, word, index, "a run is in the background anyway: leave this word out")
            else:
                advice = f"write {flow(['bash', '-c', line])}"
                _problem(
                    checks, word, index, f"{quoted(word.text)} is for a shell, and none reads these words: {advice}"
                )
            return True
    return False


def _has_typography(checks: FolderChecks, words: list[Node]) -> bool:
    """Whether words have typographic quotes or dashes, as text editors and web pages make them; reports each."""
    found = False
    for index, word in enumerate(words):
        plain = word.text.strip(_QUOTES)
        plain = "--" + plain.lstrip(_DASHES) if plain[:1] in (*_DASHES,) else plain
        if plain != word.text and plain:
            _problem(checks, word, index, f"{quoted(word.text)} has typographic quotes or dashes: write {flow(plain)}")
            found = True
    return found


def _check_program(checks: FolderChecks, words: list[Node]) -> None:
    """Reports a first word that is no program."""
    first, rest = words[0], words[1:]
    text = first.text
    if shell_words.ASSIGNMENT.fullmatch(text):
        name, _, value = text.partition("=")
        if name in RESERVED_VARIABLES:
            advice = f"gpurun sets {name} itself (resources.gpus): leave this word out"
        else:
            advice = f"a variable goes into environment: {flow({'variables': {name: value}})}: leave this word out"
        return _problem(checks, first, 0, advice)
    text = BLANKS.sub(" ", text)
    if re.search(r"\s", text.strip()) and not (checks.folder / text).exists():
        return _problem(
            checks, first, 0, f"is a whole line, and must be one word: write as words {_words(shell_words.split(text))}"
        )
    suffix = PurePosixPath(text).suffix
    if suffix in _SCRIPTS and "/" not in text:
        return _problem(
            checks, first, 0, f"{quoted(text)} is a script: write as words {_words([_SCRIPTS[suffix], text])}"
        )
    if "/" in text and not text.startswith(("/", "~")):
        found = checks.inside(text, first.place, "command[0]")
        if found is not None and found.is_file() and not os.access(found, os.X_OK):
            how = (
                f": write as words {_words([_SCRIPTS[suffix], text])}"
                if suffix in _SCRIPTS
                else f": chmod +x {flow(text)}"
            )
            _problem(checks, first, 0, f"{quoted(text)} is not executable{how}")
    if text.startswith("~") or (text in ("sudo",) and rest):
        how = (
            "write the path from /" if text.startswith("~") else "leave this word out: a run has the rights of its user"
        )
        _problem(checks, first, 0, f"{quoted(text)}: {how}")


def _check_options(checks: FolderChecks, words: list[Node]) -> None:
    """Reports an option and its value in one word, ``--lr 0.1``: no program knows that option."""
    for index, (before, word) in enumerate(pairwise(words), start=1):
        pair = _OPTION_AND_VALUE.fullmatch(word.text)
        if pair and not re.fullmatch(r"-[a-z]*c", before.text):
            _problem(checks, word, index, f"{quoted(word.text)} is two words: write as words {_words(pair.groups())}")


def _check_script(checks: FolderChecks, words: list[Node]) -> None:
    """Reports a script that does not exist: ``[python, trian.py]``."""
    if _program(words[0].text) not in _INTERPRETERS:
        return
    script = next((node for node in words[1:] if node.text.endswith(".py") or node.text in ("-m", "-c")), None)
    if script is None or script.text.startswith(("/", "-")) or re.search(r"\s", script.text):
        return
    checks.inside(script.text, script.place, "command")


def _program(word: str) -> str:
    return PurePosixPath(word).name


def _words(words: object) -> str:
    return flow(words)[1:-1]


def _problem(checks: FolderChecks, word: Node, index: int, what: str) -> None:
    checks.problem(word.place, f"command[{index}]: {what}")
