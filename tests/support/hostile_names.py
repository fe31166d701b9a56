"""File names that break what joins, splits, quotes or prints them carelessly."""

from __future__ import annotations

import os
from pathlib import Path

# As bytes: a name on a POSIX disk is bytes without "/" and NUL, whatever it looks like.
HOSTILE_NAMES: tuple[bytes, ...] = (
    b"with space",
    b" leading and trailing ",
    b"quote'single",
    b'quote"double',
    b"back\\slash",
    b"new\nline",
    b"carriage\rreturn",
    b"tab\there",
    b"-rf",
    b"--delete",
    b"; echo hi",
    b"$(touch pwned)",
    b"`touch pwned`",
    b"$HOME",
    b"star*",
    b"quest?ion",
    b"[bracket]",
    b"#hash",
    b"!bang",
    b"~tilde",
    b"colon:name",
    b"host@colon:path",
    b"percent%s%n",
    b"escape\x1b]52;c;aGk=\x07",
    b"\xc2\x9b31m",  # CSI as a C1 control character
    b"bytes-\xff\xfe",  # no UTF-8
    "umlaut-\u00fc".encode(),
    "combined-u\u0308".encode(),
    "rtl-\u202egnp.exe".encode(),
    b"...",
    b"a" * 255,
)


def hostile_tree(folder: Path) -> dict[str, bytes]:
    """Writes a file of every such name into ``folder``, one of every such folder too, and says what they hold: relative path → content.

    Names that this disk refuses (no UTF-8 on APFS) are left out.
    """
    written = {}
    for number, raw in enumerate(HOSTILE_NAMES):
        name = os.fsdecode(raw)
        for path in (name, f"{name[:200]}.d/{name}"):
            content = f"{number}\n".encode()
            try:
                (folder / path).parent.mkdir(exist_ok=True)
                (folder / path).write_bytes(content)
            except OSError:
                continue
            written[path] = content
    return written
