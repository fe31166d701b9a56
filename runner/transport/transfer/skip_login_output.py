"""ssh for rsync where the box's login shell prints: its output before the remote command starts is thrown away.

rsync's protocol begins with the first byte that it reads, so that one ``echo`` in a .bashrc ends it ("is your shell clean?"). This file is
run as a program, ``python skip_login_output.py ssh -F config host command…``: it prints a marker before the command and passes on
only what follows the marker.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

MAX_NOISE = 1 << 20  # bytes of a login shell's output
PIECE = 1 << 20


def main(argv: list[str]) -> int:
    """Runs ``ssh -F config destination command…``, and gives its exit status."""
    connect, command = argv[:4], argv[4:]
    marker = secrets.token_hex(16).encode()
    remote = f"echo {marker.decode()}; exec {' '.join(command)}"
    process = subprocess.Popen([*connect, remote], stdout=subprocess.PIPE)
    assert process.stdout is not None
    source = process.stdout.fileno()
    if _skip_noise(source, marker + b"\n"):
        while data := os.read(source, PIECE):
            _write(data)
    os.close(source)
    os.close(1)
    return process.wait()


def _skip_noise(source: int, marker: bytes) -> bool:
    """Reads up to the end of the marker, and passes on the bytes after it; False when there is no marker."""
    seen = b""
    while len(seen) < MAX_NOISE:
        data = os.read(source, PIECE)
        if not data:
            return False
        seen += data
        _, found, rest = seen.partition(marker)
        if found:
            _write(rest)
            return True
    return False


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BrokenPipeError:  # rsync has ended
        sys.exit(255)
