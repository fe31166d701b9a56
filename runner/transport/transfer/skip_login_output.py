"""ssh for rsync where the box's login shell prints: what it says before the remote command starts is thrown away.

rsync's protocol begins with the first byte it reads, so that one ``echo`` in a .bashrc ends it ("is your shell clean?"). Run as a program
(``python quiet.py ssh -F config host command…``) it puts a marker before the command and passes on only what follows it.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

MAX_NOISE = 1 << 20  # bytes; more is no greeting
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
    """Reads up to the end of the marker, and passes on what came with it; False when it does not come."""
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
