"""Asks OpenSSH whether it would accept the key of a host that gpurun has not pinned, with the user's own settings.

Aliases, several known_hosts files, commands, certificates, hashed names and revocations then mean what they mean to ``ssh``. OpenSSH
opens a second connection beside gpurun's own, and ends it before the login: it offers no key and may write no file.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import Literal

from runner.domain.errors import ConnectFailed, HostError, LinkLost
from runner.domain.host import Host
from runner.domain.terminal import clean, clean_lines
from runner.transport.openssh import write_query_config
from runner.transport.tcp import CONNECT_TIMEOUT

CERTIFIED = "-cert-v01@openssh.com"  # ends the name of an algorithm with certificates
LIMIT = 3 * CONNECT_TIMEOUT  # seconds for the whole answer
MAX_OUTPUT = 1 << 18  # characters of ssh's messages; a host may send a banner of any size
_KEY = re.compile(r"^debug1: Server host (?:key|certificate): (\S+) (SHA256:\S+?),?(?: |$)", re.MULTILINE)
_ACCEPTED = re.compile(r"^debug1: SSH2_MSG_NEWKEYS sent", re.MULTILINE)
_REFUSED = re.compile(r"^Host key verification failed\.", re.MULTILINE)
_UNKNOWN = re.compile(r"^No \S+ host key is known for ", re.MULTILINE)
_REVOKED = re.compile(r"revoked", re.IGNORECASE)
_BROKEN = re.compile(r"closed|reset|timed out|broken pipe|lost", re.IGNORECASE)


@dataclass(frozen=True)
class HostKeyAnswer:
    """OpenSSH's verdict on the key that the host showed it; ``message`` is its own explanation of a refusal."""

    verdict: Literal["known", "unknown", "changed", "revoked"]
    type: str
    fingerprint: str
    message: str


class HostKeyQuery:
    """An ``ssh`` that connects, checks the host key and ends there. It runs in the background from now on."""

    def __init__(self, host: Host) -> None:
        self._host = host
        name, file = write_query_config(host)
        self._process = subprocess.Popen(
            ["ssh", "-F", str(file), name, "true"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # without a terminal it cannot ask the user anything
        )
        self._output = ""
        self._reader = threading.Thread(target=self._read, name="first-contact", daemon=True)
        self._reader.start()

    def answer(self) -> HostKeyAnswer:
        """Waits for the verdict. Raises ConnectFailed where OpenSSH was shown no host key, LinkLost where the connection broke."""
        self._reader.join(LIMIT)
        self.close()
        shown = _KEY.search(self._output)
        if shown is None or not (_ACCEPTED.search(self._output) or _REFUSED.search(self._output)):
            raise self._failed()
        kind, fingerprint = shown[1].removesuffix(CERTIFIED), shown[2]
        lines = [line for line in self._output.splitlines() if not line.startswith(("debug", "OpenSSH_", "@"))]
        message = clean_lines("\n".join(lines), 2000)
        if _ACCEPTED.search(self._output):
            return HostKeyAnswer("known", kind, fingerprint, message)
        if _REVOKED.search(message):
            return HostKeyAnswer("revoked", kind, fingerprint, message)
        unknown = _UNKNOWN.search(self._output)
        return HostKeyAnswer("unknown" if unknown else "changed", kind, fingerprint, message)

    def close(self) -> None:
        """Ends the ssh if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # and its proxy command
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stderr is not None
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline and len(self._output) < MAX_OUTPUT:
            data = self._process.stderr.read1(1 << 16)  # type: ignore[attr-defined]
            if not data:
                return
            self._output += data.decode("utf-8", "replace").replace("\r", "")
            if _ACCEPTED.search(self._output) or _REFUSED.search(self._output):
                return

    def _failed(self) -> HostError:
        lines = [line for line in self._output.splitlines() if line and not line.startswith("debug")]
        last = clean(lines[-1], 300) if lines else f"no answer within {LIMIT} seconds"
        if not lines or _BROKEN.search(last):
            return LinkLost(
                f"the connection to {self._host} broke while its host key was checked: {last}",
                meaning="Nothing was sent and no command ran.",
                hint="Try again.",
                retryable=True,
            )
        return ConnectFailed(
            f"OpenSSH cannot connect to {self._host}: {last}",
            meaning="Nothing was sent. gpurun asks OpenSSH whether it trusts a new host, and rsync copies through it.",
            hint=f"Try by hand: ssh -p {self._host.port} {self._host.user}@{self._host.hostname}",
        )
