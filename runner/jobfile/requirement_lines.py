"""One line of requirements: may it be installed on a box, and if it is none, what was meant?"""

from __future__ import annotations

import re
from collections.abc import Iterator

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
_ADDRESS = re.compile(r"(?:(?:git|hg|svn|bzr)\+)?(?:https?|ssh|git)://\S+(?:\s+;.*)?")
_OPTIONS = (
    "-i", "--index-url", "--extra-index-url", "--no-index", "--pre", "--no-binary", "--only-binary", "--prefer-binary",
    "--require-hashes", "--trusted-host", "--use-feature",
)  # fmt: skip
# What nearly every line is; only others are worth loading the reader of the standard (20 ms).
_PLAIN = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:\[[A-Za-z0-9_,. -]*[A-Za-z0-9]\])?"
    r"(?:\s*(?:==|>=|<=|~=|!=|<|>)\s*\d+(?:\.\d+)*(?:\s*,\s*(?:==|>=|<=|!=|<|>)\s*\d+(?:\.\d+)*)*)?"
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
        option = re.split(r"[\s=]", line, maxsplit=1)[0]
        return None if option in _OPTIONS else f"{quoted(line)} is no option that a requirements file has"
    line = re.sub(r"\s--hash=\S+", "", line).strip()
    return None if _ADDRESS.fullmatch(line) else _no_requirement(line)


def _no_requirement(line: str) -> str | None:
    """Why a line does not name a package as the standard says (PEP 508)."""
    name = (re.match(r"[A-Za-z0-9._-]*", line) or [""])[0]
    if name.lower() == "python":
        return f"{quoted(line)}: the version of Python goes into environment.python, such as python: '3.11'"
    if name in PACKAGES and name != "bs4":
        return (
            f"{quoted(line)}: the package is called {PACKAGES[name]}: write {flow(PACKAGES[name] + line[len(name) :])}"
        )
    if line.endswith((".whl", ".tar.gz", ".zip")) and "://" not in line:
        return f"{quoted(line)} is a file of this machine, which the box does not have"
    if is_requirement(line):
        return None
    for meant in _meant(line):
        if meant and all(map(is_requirement, meant)):
            return f"{quoted(line)} is not a requirement: write {'as words ' * (len(meant) > 1)}{flow(meant)[1:-1]}"
    return f"{quoted(line)} is not a requirement, such as torch>=2.6"


def is_requirement(line: str) -> bool:
    """Whether a line is a package with versions, extras, a marker or an address, as the standard writes them."""
    if _PLAIN.fullmatch(line):
        return True
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        Requirement(line)
    except InvalidRequirement:
        return False
    return True


def _meant(line: str) -> Iterator[list[str]]:
    """Requirements that people write so: ``pip install x``, ``x=1.2`` (conda), ``x 1.2``, ``x@1.2`` (npm), several on one line."""
    if command := _INSTALL.fullmatch(line):
        words = [word.strip("'\"") for word in command[1].split() if not word.startswith("-")]
        yield words
        for word in words:
            yield from _meant(word)
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
