"""What may reach the user's terminal of text that came from a box.

Kept: printable text, newline, tab, carriage return and SGR colours (``ESC [ … m``). Dropped: every other control
sequence (OSC, DCS, APC, PM, SOS, the rest of CSI), C0 and C1 controls. The raw bytes go to the log file untouched; only what
is shown passes here. Grammar: ECMA-48, and xterm's ``ctlseqs`` for the string terminators.
"""

from __future__ import annotations

import codecs
import re

_STRINGS = "P]X^_"  # ESC P (DCS), ] (OSC), X (SOS), ^ (PM), _ (APC): all end with BEL or ST
_HARMLESS = re.compile(rb"[\t\n\r\x20-\x7e]*")
_PLAIN = re.compile("[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]+")
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_MAX_SEQUENCE = 64  # a CSI longer than this is nonsense, not a colour


class TerminalFilter:
    """A filter with memory: sequences and characters split over calls are recognised all the same."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._state = "text"
        self._sequence = ""

    def feed(self, data: bytes) -> str:
        """The displayable part of the next bytes."""
        if self._state == "text" and not self._decoder.getstate()[0] and _HARMLESS.fullmatch(data):
            return data.decode("ascii")
        return self._feed_text(self._decoder.decode(data))

    def finish(self) -> str:
        """What an unfinished character at the very end becomes."""
        return self._feed_text(self._decoder.decode(b"", final=True))

    def _feed_text(self, text: str) -> str:
        out: list[str] = []
        at = 0
        while at < len(text):
            if self._state == "text" and (plain := _PLAIN.match(text, at)):
                out.append(plain.group())
                at = plain.end()
                continue
            out.append(self._step(text[at]))
            at += 1
        return "".join(out)

    def _step(self, char: str) -> str:
        handler = getattr(self, f"_in_{self._state}")
        shown: str = handler(char)
        return shown

    def _in_text(self, char: str) -> str:
        if char == "\x1b":
            self._state = "escape"
        elif char == "\x9b":
            self._state, self._sequence = "csi", ""
        elif char in "\x90\x98\x9d\x9e\x9f":
            self._state = "string"
        return ""

    def _in_escape(self, char: str) -> str:
        if char == "[":
            self._state, self._sequence = "csi", ""
        elif char in _STRINGS:
            self._state = "string"
        elif not (" " <= char <= "/" or char == "\x1b"):  # intermediates go on, ESC starts anew
            self._state = "text"
        return ""

    def _in_csi(self, char: str) -> str:
        if "@" <= char <= "~":
            self._state = "text"
            colour = char == "m" and set(self._sequence) <= set("0123456789;:")
            return f"\x1b[{self._sequence}m" if colour else ""
        if char == "\x1b":
            self._state = "escape"
        elif char < " " or char > "~" or len(self._sequence) >= _MAX_SEQUENCE:
            self._state = "text"
            return char if char in "\n\r\t" else ""
        else:
            self._sequence += char
        return ""

    def _in_string(self, char: str) -> str:
        if char in "\x07\x9c":
            self._state = "text"
        elif char == "\x1b":
            self._state = "string_escape"
        elif char in "\x18\x1a":  # CAN and SUB end a string early
            self._state = "text"
        return ""

    def _in_string_escape(self, char: str) -> str:
        self._state = "text" if char == "\\" else "string"
        return ""


def without_controls(text: str) -> str:
    """Text of several lines without colours and control sequences, its layout kept."""
    shown = TerminalFilter()._feed_text(text.encode("utf-8", "replace").decode("utf-8"))
    return _COLOUR.sub("", shown).replace("\r", "")


def clean(text: object, limit: int = 500) -> str:
    """One line of untrusted text (a name, a message) without any control sequence, truncated to ``limit`` characters."""
    shown = str(text)
    if not (shown.isascii() and shown.isprintable()):  # most names are: nothing is to be removed from them
        shown = TerminalFilter()._feed_text(shown.encode("utf-8", "replace").decode("utf-8"))
        shown = re.sub(r"[\r\n\t]+", " ", _COLOUR.sub("", shown))
    shown = shown.strip()
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def clean_lines(text: object, limit: int = 4000, line_limit: int = 500) -> str:
    """Untrusted text of several lines, each cleaned and truncated to ``line_limit``; the newest part is kept when it is too long."""
    lines = [clean(line, line_limit) for line in str(text).splitlines()]
    shown = "\n".join(line for line in lines if line)
    return shown if len(shown) <= limit else "…" + shown[-limit + 1 :]
