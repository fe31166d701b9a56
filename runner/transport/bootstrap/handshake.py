"""What the box answers to ``start_command``, read out of whatever else its login shell prints."""

from __future__ import annotations

import re
from typing import NamedTuple

from remote_payload.agent.wire.paths import IDENTITY
from runner.domain.answers.reading import Impossible
from runner.domain.answers.root import box_root
from runner.domain.errors import AbsurdAnswer, BoxNotReady, GpurunError, HostError, PythonMissing
from runner.domain.terminal import clean, clean_lines

MAX_NOISE = 1024 * 1024  # bytes of a login shell's output before the agent's first line
MAX_LINE = 8192
SHOWN_NOISE = 2000
_READY = re.compile(
    rf"(?P<version>[0-9]{{1,9}}) (?P<root>[^ ]+)(?: (?P<identity>{IDENTITY.pattern})?)?(?P<home> home)?"
)


class Need(NamedTuple):
    """The box does not have this agent yet: send it ``upload(bundle)``."""

    sha256: str


class Ready(NamedTuple):
    """Frames follow. ``root`` is the folder in which the agent works, ``identity`` the number that lies there ("" where the disk keeps
    none), ``rest`` the first bytes of frames, which came with the line; ``at_home``: the root lies in the home folder."""

    version: int
    root: str
    identity: str
    rest: bytes
    at_home: bool = False


class Handshake:
    """Finds the lines that begin with the nonce among what a login shell prints. It is given bytes, and does no I/O."""

    def __init__(self, nonce: str) -> None:
        self._line = re.compile(rb"%s (need|ready|refused) ([^\r\n]{0,%d})\r?\n" % (nonce.encode("ascii"), MAX_LINE))
        self._unread = b""
        self._seen = 0
        self.noise = b""  # the end of the login shell's output

    def feed(self, data: bytes) -> Need | Ready | None:
        """The next line with the nonce, if these bytes complete one. Raises BoxNotReady when the box refuses or prints without end."""
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
        ready = _READY.fullmatch(text)
        if ready is None or not _is_root(ready["root"]):
            raise AbsurdAnswer(f"the box answered with a line that makes no sense: {clean(text, 200)}")
        rest, self._unread = self._unread, b""
        return Ready(int(ready["version"]), ready["root"], ready["identity"] or "", rest, bool(ready["home"]))

    def ended(self) -> GpurunError:
        """Why there is no agent, for a channel that ended (or stayed silent) before ``ready``: what the box printed instead."""
        printed = clean_lines((self.noise + self._unread)[-SHOWN_NOISE:].decode("utf-8", "replace")).strip()
        return HostError(
            "the box ended the session before gpurun's agent could start"
            + (f"; it printed:\n{printed}" if printed else ""),
            meaning="Nothing was started there.",
            hint="Try ssh with the same address and the command: echo hello. It has to print hello and nothing of a menu or a console.",
        )

    def _keep_tail(self) -> None:
        """A line with the nonce may have begun in the last MAX_LINE bytes; what is older is noise."""
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
    hint = (
        "Free some space there, or name a folder that can be written: gpurun hosts set HOST --volume DIR. "
        "If this is another box than the last time: gpurun hosts forget HOST, and it chooses a folder."
    )
    return BoxNotReady(f"gpurun cannot work in its folder on the box: {clean(text, 500)}", meaning=meaning, hint=hint)
