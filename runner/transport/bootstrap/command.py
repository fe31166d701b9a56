"""What the laptop sends: the command that starts an agent on any box, and the bytes that follow it."""

from __future__ import annotations

import base64
import functools
import json
import re
import secrets
import zlib
from collections.abc import Sequence
from importlib import resources

from remote_payload.agent.wire.paths import SAFE_PATH, BoxPaths
from runner.domain.host import HOME
from runner.transport.bundle import Bundle

MAX_WORD = 4000  # characters; csh has the shortest words

# Where rented images keep a Python when PATH of a non-login shell does not say.
PLACES = (
    "python3 /usr/bin/python3 /usr/local/bin/python3 /opt/conda/bin/python3 /venv/main/bin/python3 /opt/venv/bin/python3 "
    "/opt/miniconda3/bin/python3 /root/miniconda3/bin/python3 /usr/local/conda/bin/python3 $HOME/miniconda3/bin/python3 "
    "$HOME/anaconda3/bin/python3 $HOME/miniforge3/bin/python3 /workspace/venv/bin/python3 python3.13 python3.12 python3.11 "
    "python3.10 python3.9 python3.8 python"
)

# POSIX sh, inside single quotes of whatever the login shell is: no single quote, backslash, newline or exclamation mark
# (csh, fish). Its arguments: nonce, volume, the packed program, the packed first input. These exit codes mean that this Python is
# too old or broken and has read nothing: the next one is tried.
SHELL = (
    "for p in " + PLACES + "; do command -v $p >/dev/null 2>&1 || continue; "
    '$p -I -S -c "import sys;sys.version_info<(3,8)and sys.exit(97);import base64,zlib;'
    'exec(zlib.decompress(base64.b64decode(sys.argv[3])))" "$1" "$2" "$3" "$4" remote_payload.agent; '
    "r=$?; case $r in 1|2|97|126|127) ;; *) exit $r ;; esac; done; "
    'echo "$1 refused python none"; exit 127'
)

# As SHELL, for an agent that is on the box already: it becomes the program. Its arguments: the agent's folder, its zipapp (of which one may
# be missing), the root, the run, the packed argv.
BESIDE = (
    "for p in " + PLACES + "; do command -v $p >/dev/null 2>&1 || continue; "
    '$p -I -S -c "import sys;sys.exit(sys.version_info<(3,8))" >/dev/null 2>&1 || continue; '
    'exec $p -I -S -c "import sys;sys.path[:0]=sys.argv[1:3];del sys.argv[1:3];'
    'from remote_payload.agent.__main__ import main;main()" "$1" "$2" beside "$3" "$4" "$5"; done; '
    'echo "gpurun: no Python on the box" >&2; exit 127'
)

# Comment lines and docstrings of ``on_box.py``: they need not travel.
_PROSE = re.compile(r'^ *(?:#.*|"""(?:.|\n)*?""")\n', re.MULTILINE)


def new_nonce() -> str:
    """128 random bits that no noise contains."""
    return secrets.token_hex(16)


def start_command(nonce: str, volume: str | None = None, first_input: bytes = b"") -> str:
    """The exec request's command line; the same for bash, zsh, fish, dash and csh.

    ``volume`` is the folder that holds ``.gpurun-box``, HOME the home folder; with None the box chooses one that survives a stop.

    ``first_input`` takes the place of the first bytes of standard input, if ``fits_command`` allows it. Raises ValueError for
    a volume that a shell could read in another way.
    """
    if not re.fullmatch(r"[0-9a-f]{32}", nonce):
        raise ValueError(f"not a nonce: {nonce!r}")
    if volume not in (None, HOME) and not (volume.startswith("/") and SAFE_PATH.fullmatch(volume)):
        raise ValueError(f"unusable volume: {volume!r}")
    folder = "-" if volume in (None, HOME) else volume
    packed = _packed(program(choosing=volume is None))
    return f"exec /bin/sh -c '{SHELL}' gpurun {nonce} {folder} {packed} {_packed(first_input)}"


def beside_command(paths: BoxPaths, sha256: str, run_id: str, words: Sequence[str]) -> str:
    """The command line that becomes the program ``words`` beside a run, by the agent of that sha256; the same for every login shell.

    No shell reads ``words``: they travel as one word of letters and digits. "-" as ``run_id``: beside no run.
    """
    packed = base64.b64encode(json.dumps(list(words)).encode()).decode()
    folder = paths.agent(sha256).removesuffix(".pyz")
    return f"exec /bin/sh -c '{BESIDE}' gpurun {folder} {folder}.pyz {paths.root} {run_id} {packed}"


def fits_command(first_input: bytes) -> bool:
    """Whether it is short enough for every login shell, and names no URL, which may hold a password."""
    return b"://" not in first_input and len(_packed(first_input)) < MAX_WORD


@functools.cache
def program(*, choosing: bool = False) -> bytes:
    """The source of ``on_box.py`` without its comment lines and docstrings; with ``choosing`` it chooses the folder for the root first."""
    source = (resources.files(__package__) / "on_box.py").read_text("utf-8")
    if choosing:
        chooser = (resources.files("remote_payload.agent.box") / "provider.py").read_text("utf-8")
        source = f"{chooser}import sys\nsys.argv[2] = surviving_folder()\n{source}"
    return _PROSE.sub("", source).encode()


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode()


def opening(sha256: str, early: bytes = b"") -> bytes:
    """The first input: which agent the laptop wants, and whole frames for the agent to work on as soon as it runs."""
    return b"%s %d\n" % (sha256.encode("ascii"), len(early)) + early


def upload(bundle: Bundle) -> bytes:
    """The answer to ``need``."""
    packed = zlib.compress(bundle.data, 9)
    return b"%d\n" % len(packed) + packed
