"""Marks: eight bytes for each file of a tree, a hash of its path, size, time and permissions. Laptop and box compute the same."""

import hashlib
from typing import TYPE_CHECKING, List, NamedTuple, Optional

if TYPE_CHECKING:
    from remote_payload.agent.wire.fields import Fields

MARK = 8  # bytes
MAX_OFFERED = 5000  # files; the marks of more would be longer than rsync's own exchange
MAX_BYTES = 4 << 20  # of replaced files, before compression


class Expected(NamedTuple):
    """What a pushed tree must be: ``marks`` is its fingerprint, over contents instead of times where ``contents``."""

    marks: Optional[str]
    contents: bool = False
    permissions: bool = True  # False where the filesystem of the box keeps none


def read_expected(asked: "Fields") -> Expected:
    """The fields of a request that say what a pushed tree must be."""
    return Expected(asked.optional_text("marks"), asked.flag("contents"), asked.flag("permissions", default=True))


def mark(path: bytes, size: int, mtime_ns: int, mode: int, target: Optional[bytes] = None) -> bytes:
    """The mark of a file, or (``target``) of a link: another version of it has another mark. The content is not read."""
    facts = b"link\0" + target if target is not None else b"%d %d %o" % (size, mtime_ns, mode)
    return hashlib.sha256(path + b"\0" + facts).digest()[:MARK]


def whole_seconds(mtime_ns: int) -> int:
    """A time as every transport carries it: tar and old versions of rsync keep no fractions."""
    return mtime_ns // 10**9 * 10**9


def content_mark(path: bytes, size: int, mode: int, content: bytes) -> bytes:
    """The mark of a file that was read: its content (a digest) takes the place of its time."""
    return mark(path + b"\0" + content, size, 0, mode)


def together(marks: List[bytes]) -> str:
    """One name (hex) for a whole tree of marked files, whatever their order."""
    return hashlib.sha256(b"".join(sorted(marks))).hexdigest()
