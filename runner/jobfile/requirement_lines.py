"""One line of requirements: whether it can be installed on a box, and if not, what to write instead."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from urllib.parse import urlsplit

from runner.domain.flow import flow
from runner.jobfile.problems import quoted

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
_ADDRESS = re.compile(r"((?:(?:git|hg|svn|bzr)\+)?(?:https?|ssh|git)://\S+)(?:\s.*)?")
_HASH = re.compile(r"\s--hash[= ](?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})(?=\s|$)")
# Options that a requirements file may have (pip's documentation, "Requirements File Format") → whether a value follows.
_OPTIONS = {
    "-i": True, "--index-url": True, "--extra-index-url": True, "--no-index": False, "--pre": False, "--no-binary": True,
    "--only-binary": True, "--prefer-binary": False, "--require-hashes": False, "--trusted-host": True, "--use-feature": True,
}  # fmt: skip
# What nearly every line is: loading packaging for the others takes 40 ms.
PLAIN = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
    r"(?:[ ]*(?:==|>=|<=|!=|<|>)[ ]*[0-9]+(?:\.[0-9]+)*(?:[ ]*,[ ]*(?:==|>=|<=|!=|<|>)[ ]*[0-9]+(?:\.[0-9]+)*)*)?"
)
_INSTALL = re.compile(r"(?:(?:python3? -m |uv )?pip3?|conda|mamba)\s+install\s+(.*)")
# Import name → the package that brings it, where pip knows none of that name or the wrong one.
PACKAGES = {
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "bs4": "beautifulsoup4",
    "pytorch": "torch",
}


def refusal(line: str) -> str | None:
    """Why a requirement cannot be installed on a box, or None."""
    for beginnings, why in _REFUSED.items():
        if line.startswith(beginnings) or ("file:" in beginnings and _LOCAL.search(line)):
            return f"{quoted(line)} {why}"
    if _PASSWORD.search(line):
        return "an address with a password in it would be kept on the box"
    if line.startswith("-"):
        return _wrong_option(line)
    return _no_requirement(_HASH.sub("", line).strip())


def _wrong_option(line: str) -> str | None:
    """What is wrong with a line of options such as ``-i https://example.org/simple --pre``, or None."""
    try:
        words = shlex.split(line)
    except ValueError:
        return f"{quoted(line)}: a quote is opened and not closed"
    while words:
        option, equals, _ = words.pop(0).partition("=")
        if not option.startswith("-"):
            return f"{quoted(line)}: {quoted(option)} does not belong there, options have a line of their own"
        if option not in _OPTIONS:
            return f"{quoted(option)} is no option that a requirements file has"
        if equals and not _OPTIONS[option]:
            return f"{quoted(line)}: {option} takes no value"
        if _OPTIONS[option] and not equals:
            if not words or words[0].startswith("-"):
                return f"{quoted(line)}: {option} needs a value"
            words.pop(0)
    return None


def _no_requirement(line: str) -> str | None:
    """Why a line is no requirement (PEP 508) that can be installed on a box, with the correct form where it can be guessed; or None."""
    name = (re.match(r"[A-Za-z0-9._-]*", line) or [""])[0]
    if name.lower() == "python":
        return f"{quoted(line)}: the version of Python goes into environment.python, such as python: '3.11'"
    if name in PACKAGES and name != "bs4":
        return (
            f"{quoted(line)}: the package is called {PACKAGES[name]}: write {flow(PACKAGES[name] + line[len(name) :])}"
        )
    if line.endswith((".whl", ".tar.gz", ".zip")) and "://" not in line:
        return f"{quoted(line)} is a file of this machine, which the box does not have"
    if is_requirement(line, unnamed=True):
        return None
    for suggested in _suggestions(line):
        if suggested and all(map(is_requirement, suggested)):
            return f"{quoted(line)} is not a requirement: write {'as words ' * (len(suggested) > 1)}{flow(suggested)[1:-1]}"
    return f"{quoted(line)} is not a requirement, such as torch>=2.6"


def is_requirement(line: str, unnamed: bool = False) -> bool:
    """Whether a line is a package with versions, extras, a marker or an address, in the form of PEP 508.

    ``unnamed`` allows an address alone, with or without a marker, which pip accepts beyond the standard.
    """
    if PLAIN.fullmatch(line):
        return True
    from packaging.requirements import InvalidRequirement, Requirement

    address = _ADDRESS.fullmatch(line) if unnamed else None
    try:
        found = Requirement(f"package @ {line}" if address else line)
        return found.url is None or bool(urlsplit(found.url).netloc)
    except (InvalidRequirement, ValueError):  # urlsplit: an IPv6 address with one bracket
        return False


def _suggestions(line: str) -> Iterator[list[str]]:
    """Requirements that people write so: ``pip install x``, ``x=1.2`` (conda), ``x 1.2``, ``x@1.2`` (npm), several on one line."""
    if command := _INSTALL.fullmatch(line):
        words = [word.strip("'\"") for word in command[1].split() if not word.startswith("-")]
        yield words
        for word in words:
            yield from _suggestions(word)
    if pair := re.fullmatch(
        r"([A-Za-z0-9][\w.-]*)(?:\s*(?:=|:|@|\^|==)\s*|\s+v?)v?(\d+(?:\.(?:\d+|\*))*)(?:=\w+)?", line
    ):
        yield [f"{pair[1]}=={pair[2]}"]
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*\s*==\s*[\d.]+\.[xX]", line):
        yield [line[:-1] + "*"]
    yield [re.sub(r"(?<=[\w*])\s+(?=[<>=!~])", ",", line)]
    yield [re.sub(r"=>", ">=", re.sub(r"=<", "<=", line))]
    yield [word for word in re.split(r"[\s,]+", line) if word]
    yield [word.strip() for word in re.split(r",(?=\s*[A-Za-z])", line)]
