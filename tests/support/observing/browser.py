"""A headless Chromium, driven over two pipes with the DevTools protocol: pages are opened, asked with JavaScript and photographed."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
LIMIT = 120.0  # seconds for one answer, on a machine that has much else to do


def find() -> str | None:
    """The browser of this machine."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Browser:
    """One process with one tab. ``trouble`` has every error that a page wrote to the console or raised, ``asked`` every address that it
    asked for, ``refused`` those that its policy kept from being asked for."""

    def __init__(self, program: str, profile: Path) -> None:
        to_browser, self._send = (_high(each) for each in os.pipe())
        self._receive, from_browser = (_high(each) for each in os.pipe())

        def connect() -> None:  # the protocol's pipes are descriptors 3 and 4
            os.dup2(to_browser, 3)
            os.dup2(from_browser, 4)

        self._process = subprocess.Popen(
            [
                program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
                "--hide-scrollbars", "--no-first-run", f"--user-data-dir={profile}", "about:blank",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=connect, pass_fds=(3, 4),
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self._unread, self._number = b"", 0
        self.trouble: list[str] = []
        self.asked: list[str] = []
        self.refused: list[str] = []
        self._requests: dict[str, str] = {}
        self._events: list[dict[str, Any]] = []
        tab = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, page: Path, *, dark: bool = False, size: tuple[int, int] = (1100, 900)) -> None:
        """Opens a file, and awaits its end of loading. What an earlier page left in ``trouble`` and ``asked`` is forgotten."""
        self.trouble.clear()
        self.asked.clear()
        self.refused.clear()
        self._events.clear()
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._call("Emulation.setEmulatedMedia", media="screen", features=scheme)
        self._call(
            "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=False
        )
        self._call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._read()

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def picture(self, file: Path) -> None:
        """What the window shows, as a PNG."""
        file.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Presses the button at one point of the window and lets go at the other."""
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=start[0], y=start[1])
        for kind, (x, y) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._send)
        os.close(self._receive)

    def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message: dict[str, object] = {"id": number, "method": method, "params": parameters}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                found: dict[str, Any] = answer["result"]
                return found

    def _read(self) -> dict[str, Any]:
        """The next message; an event is noted."""
        until = time.monotonic() + LIMIT
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._receive], [], [], max(0.0, until - time.monotonic()))
            assert ready, "the browser did not answer in time"
            data = os.read(self._receive, 1 << 20)
            assert data, "the browser has ended"
            self._unread += data
        whole, self._unread = self._unread.split(b"\0", 1)
        message: dict[str, Any] = json.loads(whole)
        if "method" in message:
            self._note(message)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        self._events.append(event)
        about = event["params"]
        if event["method"] == "Network.requestWillBeSent":
            self.asked.append(about["request"]["url"])
            self._requests[about["requestId"]] = about["request"]["url"]
        elif event["method"] == "Network.loadingFailed" and about.get("blockedReason") == "csp":
            self.refused.append(self._requests[about["requestId"]])
        elif event["method"] == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.trouble.append(about["entry"]["text"])
        elif event["method"] == "Runtime.exceptionThrown":
            self.trouble.append(json.dumps(about["exceptionDetails"]))
        elif event["method"] == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            self.trouble.append(json.dumps(about["args"]))


def _high(descriptor: int) -> int:
    """The same pipe under a number that the two of the protocol cannot take."""
    found = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return found


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser for the block. There must be one on this machine (``find``)."""
    program = find()
    assert program
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        opened = Browser(program, Path(profile))
        try:
            yield opened
        finally:
            opened.close()
