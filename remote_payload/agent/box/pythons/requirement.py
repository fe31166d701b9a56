"""Does an installed version satisfy a requirement? Versions and specifiers as the packaging guide defines them.

https://packaging.python.org/en/latest/specifications/version-specifiers/ — written out here because the agent has
nothing but the standard library. Environment markers, URLs and options are refused, never guessed at.
"""

import re
from typing import Dict, List, NamedTuple, Optional, Tuple

VERSION = re.compile(
    r"v?(?:(?P<epoch>\d+)!)?(?P<release>\d+(?:\.\d+)*)"
    r"(?:[-_.]?(?P<pre>a|b|c|rc|alpha|beta|pre|preview)[-_.]?(?P<pre_number>\d*))?"
    r"(?P<post>-(?P<post_dash>\d+)|[-_.]?(?:post|rev|r)[-_.]?(?P<post_number>\d*))?"
    r"(?P<dev>[-_.]?dev[-_.]?(?P<dev_number>\d*))?"
    r"(?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))?",
    re.IGNORECASE,
)
LINE = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[^\]]*\])?\s*\(?(?P<specifiers>[^;@()]*)\)?"
)
SPECIFIER = re.compile(r"(===|==|~=|!=|<=|>=|<|>)\s*([A-Za-z0-9][^\s,]*)")
PRE = {"a": "a", "alpha": "a", "b": "b", "beta": "b", "c": "rc", "rc": "rc", "pre": "rc", "preview": "rc"}

Key = Tuple[object, ...]


class Requirement(NamedTuple):
    """One line: a normalised name and what its version must be; ``text`` is the line as it was written."""

    name: str
    specifiers: List[Tuple[str, str]]
    text: str

    def accepts(self, version: str) -> bool:
        """Whether this version will do. An unreadable version never does; a pre-release only where one is asked for."""
        try:
            parsed = _Version(version)
            if parsed.is_prerelease and not any(_asks_for_prerelease(*each) for each in self.specifiers):
                return False
            return all(_holds(parsed, operator, value) for operator, value in self.specifiers)
        except ValueError:
            return False


def parse(text: str) -> List[Requirement]:
    """The requirements in a text of the requirements.txt kind, hashes and comments ignored.

    Raises ValueError naming the first line that is more than a name and versions (a marker, a URL, an option).
    """
    requirements = []
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"(^|\s)#.*", "", line)
        line = re.sub(r"\s--hash=\S+", "", line).strip()
        if line:
            requirements.append(_parse_line(line))
    return requirements


def _parse_line(line: str) -> Requirement:
    matched = LINE.fullmatch(line)
    if matched is None:
        raise ValueError("not a plain requirement: %s" % line[:200])
    specifiers = []
    for part in filter(None, (part.strip() for part in matched.group("specifiers").split(","))):
        specifier = SPECIFIER.fullmatch(part)
        if specifier is None:
            raise ValueError("not a plain requirement: %s" % line[:200])
        specifiers.append((specifier.group(1), specifier.group(2)))
    return Requirement(normalise(matched.group("name")), specifiers, line)


def normalise(name: str) -> str:
    """A distribution's name as all its spellings compare equal."""
    return re.sub(r"[-_.]+", "-", name).lower()


def unsatisfied(requirements: List[Requirement], installed: Dict[str, str]) -> List[Requirement]:
    """Those requirements that ``installed`` (normalised name → version) does not meet."""
    return [each for each in requirements if not each.accepts(installed.get(each.name, ""))]


class _Version:
    def __init__(self, text: str) -> None:
        matched = VERSION.fullmatch(text.strip())
        if matched is None or len(text) > 200:
            raise ValueError("not a version: %r" % text[:200])
        part = matched.groupdict()
        self.epoch = int(part["epoch"] or 0)
        self.release = tuple(int(number) for number in part["release"].split("."))
        self.pre = (PRE[part["pre"].lower()], int(part["pre_number"] or 0)) if part["pre"] else None
        self.post = int(part["post_dash"] or part["post_number"] or 0) if part["post"] else None
        self.dev = int(part["dev_number"] or 0) if part["dev"] else None
        self.local = part["local"]

    @property
    def is_prerelease(self) -> bool:
        return self.pre is not None or self.dev is not None

    def key(self, local: bool = False) -> Key:
        """What orders versions: dev < a < b < rc < final < post; trailing zeros do not count."""
        release = list(self.release)
        while len(release) > 1 and release[-1] == 0:
            release.pop()
        final = ("", 0) if self.dev is not None and self.post is None else ("z", 0)  # 1.0.dev1 comes before 1.0a1
        pre = self.pre or final
        post = -1 if self.post is None else self.post
        dev = (1, 0) if self.dev is None else (0, self.dev)
        key: Key = (self.epoch, tuple(release), pre, post, dev)
        return (*key, _local_key(self.local)) if local else key


def _local_key(local: Optional[str]) -> Tuple[Tuple[int, int, str], ...]:
    parts = re.split(r"[-_.]", local.lower()) if local else []
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)


def _asks_for_prerelease(operator: str, value: str) -> bool:
    return operator != "!=" and not value.endswith(".*") and _Version(value).is_prerelease


def _holds(version: _Version, operator: str, value: str) -> bool:
    if operator == "===":
        raise ValueError("arbitrary equality is not supported")
    if operator in ("==", "!="):
        return _equal(version, value) is (operator == "==")
    bound = _Version(value)
    if operator == "~=":
        prefix = ".".join(str(number) for number in bound.release[:-1])
        if not prefix:
            raise ValueError("~= needs two numbers: %s" % value)
        return version.key() >= bound.key() and _equal(version, "%d!%s.*" % (bound.epoch, prefix))
    if operator == ">=":
        return version.key() >= bound.key()
    if operator == "<=":
        return version.key() <= bound.key()
    same_release = version.key()[:2] == bound.key()[:2]
    if operator == ">":  # > 1.0 does not allow 1.0.post1
        own_post = same_release and version.pre == bound.pre and version.post is not None
        return version.key() > bound.key() and not (own_post and bound.post is None and bound.dev is None)
    return version.key() < bound.key() and not (same_release and version.is_prerelease and not bound.is_prerelease)


def _equal(version: _Version, value: str) -> bool:
    if value.endswith(".*"):
        prefix = _Version(value[:-2])
        wanted = prefix.release
        padded = version.release + (0,) * (len(wanted) - len(version.release))
        return version.epoch == prefix.epoch and padded[: len(wanted)] == wanted
    bound = _Version(value)
    return version.key(local=bound.local is not None) == bound.key(local=bound.local is not None)
