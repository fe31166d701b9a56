"""Eight bytes for each file of a tree, over all that makes it the file it should be; laptop and box compute them alike."""

import hashlib
from typing import List, Optional

MARK = 8  # bytes
MAX_OFFERED = 5000  # files; the marks of more would be longer than what rsync says
MAX_BYTES = 4 << 20  # of replaced files, before compression


def mark(path: bytes, size: int, mtime_ns: int, mode: int, target: Optional[bytes] = None) -> bytes:
    """What tells one version of a file (or, with ``target``, of a link) from any other without reading it."""
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
