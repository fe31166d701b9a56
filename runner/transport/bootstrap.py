"""From an exec channel to an agent: the command that starts it on any box, and the few lines said before frames begin.

The laptop says, at once and without waiting, ``<sha256> <n>`` and n bytes of frames: in the command line where they are short and anybody
on the box may see them (OpenSSH opens a session with no window, so that standard input costs a round trip before its first
byte), else on standard input. The box answers with lines that begin with the nonce (anything else is a login shell's noise):

    <nonce> ready <protocol version> <root>     frames follow; the n bytes are being worked on
    <nonce> need <sha256>                       send ``<length>`` and the zipapp, compressed; ``ready`` comes next, the n bytes are kept
    <nonce> refused <reason> <text>             python (none ≥ 3.8), terminal (a PTY was forced on us), path (an odd home folder), root (no
                                                place to work)

So an agent that is already there costs no round trip more than its first request. It is unpacked beside the zipapp, since Python compiles
what it imports from a zip anew each time: 100 ms for every connection.
"""

from __future__ import annotations

import base64
import re
import secrets
import zlib
from typing import NamedTuple

from remote_payload.agent.wire.paths import SAFE_PATH
from runner.domain.answers.box import box_root
from runner.domain.answers.reading import Impossible
from runner.domain.errors import AbsurdAnswer, BoxNotReady, GpurunError, HostError, PythonMissing
from runner.domain.terminal import clean, clean_lines
from runner.transport.bundle import Bundle

MAX_NOISE = 1024 * 1024  # of a login shell, before the agent's first line
MAX_LINE = 8192
SHOWN_NOISE = 2000
MAX_WORD = 4000

# Where rented images keep a Python when PATH of a non-login shell does not say.
PLACES = (
    "python3 /usr/bin/python3 /usr/local/bin/python3 /opt/conda/bin/python3 /venv/main/bin/python3 /opt/venv/bin/python3 "
    "/opt/miniconda3/bin/python3 /root/miniconda3/bin/python3 /usr/local/conda/bin/python3 $HOME/miniconda3/bin/python3 "
    "$HOME/anaconda3/bin/python3 $HOME/miniforge3/bin/python3 /workspace/venv/bin/python3 python3.13 python3.12 python3.11 "
    "python3.10 python3.9 python3.8 python"
)

# POSIX sh, inside single quotes of whatever the login shell is: no single quote, backslash, newline or exclamation mark
# (csh, fish). These exit codes mean that this Python is too old or broken and has read nothing: the next one is tried.
SHELL = (
    "for p in " + PLACES + "; do command -v $p >/dev/null 2>&1 || continue; "
    '$p -I -S -c "import sys;sys.version_info<(3,8)and sys.exit(97);import base64,zlib;'
    'exec(zlib.decompress(base64.b64decode(sys.argv[3])))" "$1" "$2" "$3" "$4" remote_payload.agent; '
    "r=$?; case $r in 1|2|97|126|127) ;; *) exit $r ;; esac; done; "
    'echo "$1 refused python none"; exit 127'
)

# Reads byte-exactly: what follows belongs to the agent, which goes on in this same process.
STUB = """
import hashlib, os, re, sys
nonce, volume = sys.argv[1:3]
ahead = bytearray(zlib.decompress(base64.b64decode(sys.argv[4])))

def say(*words):
    os.write(1, (" ".join((nonce,) + words) + chr(10)).encode("ascii", "replace"))

def read(count):
    data = ahead[:count]
    del ahead[:count]
    while len(data) < count:
        part = os.read(0, min(count - len(data), 1 << 20))
        if not part:
            os._exit(0)
        data += part
    return bytes(data)

def line():
    data = b""
    while not data.endswith(b"\\n") and len(data) < 200:
        data += read(1)
    return data.decode("ascii").split()

def refuse(reason, text):
    say("refused", reason, str(text).replace(chr(10), " ")[:2000])
    os._exit(71)

def unpacked(path, place):
    if os.path.isdir(place):
        return place
    import shutil, zipfile
    partial = place + ".tmp-" + str(os.getpid())
    try:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(partial)
        os.rename(partial, place)
        return place
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        return path

if os.isatty(0):
    refuse("terminal", "standard input is a terminal")
try:
    top = os.path.expanduser("~") if volume == "-" else volume
    root = os.path.join(os.path.normpath(top), ".gpurun-box")
    if not re.fullmatch("/[A-Za-z0-9._/@+-]*", top):  # SAFE_PATH, which is not there yet
        refuse("path", ascii(top))
    if not os.path.isdir(top):
        raise OSError(top + " is not a folder")
    folder = os.path.join(root, "agent")
    for each in (root, folder):
        try:
            os.mkdir(each, 0o700)
        except FileExistsError:
            pass
    sha256, count = line()
    early = read(min(int(count), 1 << 24))
    path = os.path.join(folder, sha256 + ".pyz")
    try:
        with open(path, "rb") as file:
            there = hashlib.sha256(file.read()).hexdigest() == sha256
    except OSError:
        there = False
    if not there:
        say("need", sha256)
        try:
            data = zlib.decompress(read(min(int(line()[0]), 1 << 26)))
        except zlib.error:
            data = b""
        if hashlib.sha256(data).hexdigest() != sha256:
            raise OSError("the agent arrived damaged")
        partial = path + ".tmp-" + str(os.getpid())
        try:
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(partial, path)
        except OSError:
            os.unlink(partial)
            raise
    sys.path.insert(0, unpacked(path, os.path.join(folder, sha256)))
    from remote_payload.agent.__main__ import main
except Exception as error:
    refuse("root", error)
main(["serve", nonce, root], early)
"""


def new_nonce() -> str:
    """128 random bits that no noise contains."""
    return secrets.token_hex(16)


def command(nonce: str, volume: str | None = None, said: bytes = b"") -> str:
    """The exec request's command line; the same for bash, zsh, fish, dash and csh. ``volume`` holds ``.gpurun-box`` instead of the home.

    ``said`` is what would be said first on standard input, if ``fits_command`` allows it here. Raises ValueError for a
    volume that could mean anything to a shell.
    """
    if not re.fullmatch(r"[0-9a-f]{32}", nonce):
        raise ValueError(f"not a nonce: {nonce!r}")
    if volume is not None and not (volume.startswith("/") and SAFE_PATH.fullmatch(volume)):
        raise ValueError(f"unusable volume: {volume!r}")
    return f"exec /bin/sh -c '{SHELL}' gpurun {nonce} {volume or '-'} {_packed(STUB.encode())} {_packed(said)}"


def fits_command(said: bytes) -> bool:
    """Whether it is short enough for every login shell (csh has the shortest words), and names no URL, which may hold a password."""
    return b"://" not in said and len(_packed(said)) < MAX_WORD


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode()


def opening(sha256: str, early: bytes = b"") -> bytes:
    """What the laptop writes first: which agent it wants, and whole frames that are to be worked on as soon as it runs."""
    return b"%s %d\n" % (sha256.encode("ascii"), len(early)) + early


def upload(bundle: Bundle) -> bytes:
    """The answer to ``need``."""
    packed = zlib.compress(bundle.data, 9)
    return b"%d\n" % len(packed) + packed


class Need(NamedTuple):
    """The box does not have this agent yet: write ``upload(bundle)``."""

    sha256: str


class Ready(NamedTuple):
    """Frames follow. ``root`` is where the agent works; ``rest`` the first bytes of frames that came along."""

    version: int
    root: str
    rest: bytes


class Handshake:
    """Reads the box's lines out of whatever a login shell prints around them. No I/O."""

    def __init__(self, nonce: str) -> None:
        self._line = re.compile(rb"%s (need|ready|refused) ([^\r\n]{0,%d})\r?\n" % (nonce.encode("ascii"), MAX_LINE))
        self._unread = b""
        self._seen = 0
        self.noise = b""  # the last of what was not for us

    def feed(self, data: bytes) -> Need | Ready | None:
        """The next line for us, if these bytes complete one. Raises BoxNotReady when the box refuses or floods."""
        self._unread += data
        found = self._line.search(self._unread)
        if found is None:
            self._seen += len(data)
            if self._seen > MAX_NOISE:
                raise self._flood()
            self._keep_tail()
            return None
        self.noise = (self.noise + self._unread[: found.start()])[-SHOWN_NOISE:]
        self._unread = self._unread[found.end() :]
        word, text = found[1], found[2].decode("utf-8", "replace")
        if word == b"refused":
            raise _refusal(*text.partition(" ")[::2])
        if word == b"need":
            return Need(text)
        version, _, root = text.partition(" ")
        if not re.fullmatch("[0-9]{1,9}", version) or not _is_root(root):
            raise AbsurdAnswer(f"the box answered with a line that makes no sense: {clean(text, 200)}")
        rest, self._unread = self._unread, b""
        return Ready(int(version), root, rest)

    def ended(self) -> GpurunError:
        """Why there is no agent, for a channel that ended (or stayed silent) before ``ready``: what the box said instead."""
        said = clean_lines((self.noise + self._unread)[-SHOWN_NOISE:].decode("utf-8", "replace")).strip()
        return HostError(
            "the box ended the session before gpurun's agent could start" + (f"; it said:\n{said}" if said else ""),
            meaning="Nothing was started there.",
            hint="Try ssh with the same address and the command: echo hello. It has to print hello and nothing of a menu or a console.",
        )

    def _keep_tail(self) -> None:
        """A line for us may have begun in the last MAX_LINE bytes; what is older was noise."""
        longest = MAX_LINE + 64
        self.noise = (self.noise + self._unread[:-longest])[-SHOWN_NOISE:]
        self._unread = self._unread[-longest:]

    def _flood(self) -> BoxNotReady:
        return BoxNotReady(
            f"the login shell of the box printed more than {MAX_NOISE >> 20} MiB and no agent answered",
            meaning="Nothing was started there.",
            hint="Make its .bashrc (or .zshrc, config.fish) silent for shells that are not interactive.",
        )


def _is_root(path: str) -> bool:
    try:
        return box_root(path) == path
    except Impossible:
        return False


def _refusal(reason: str, text: str) -> GpurunError:
    meaning = "Nothing was started there."
    if reason == "python":
        hint = "On the box, type: apt-get update && apt-get install -y python3"
        return PythonMissing("the box has no Python ≥ 3.8 in any usual place", meaning=meaning, hint=hint)
    if reason == "terminal":
        hint = "Remove RequestTTY from this host's ssh configuration, or use the provider's direct SSH address rather than its web proxy."
        return BoxNotReady(
            "the box forces a terminal on every session, so no data can pass", meaning=meaning, hint=hint
        )
    if reason == "path":
        return BoxNotReady(
            f"the home folder on the box is called {clean(text, 200)}, and gpurun works only below names of letters, digits and . _ - @ +",
            meaning=meaning,
            hint="Name another folder there, with --volume /workspace or for good: gpurun hosts set HOST --volume /workspace",
        )
    hint = "Name a volume that can be written in the host's entry, or free some space."
    return BoxNotReady(f"gpurun cannot work in its folder on the box: {clean(text, 500)}", meaning=meaning, hint=hint)
