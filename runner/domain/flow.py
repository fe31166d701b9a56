"""Values written on one line of a job file (YAML's flow style), for messages that show the correct form."""

from __future__ import annotations

import re

from remote_payload.agent.wire.redact import redact

# Text that YAML reads as text anywhere; everything else is put in quotes.
_PLAIN = re.compile(r"(?:--?|\.{0,2}/)?[A-Za-z_][A-Za-z0-9_./=-]*")
_NOT_TEXT = ("true", "false", "null", "yes", "no", "on", "off")


def flow(value: object) -> str:
    """``["a", {"b": 1}]`` → ``[a, {b: 1}]``, without anything secret; text stays text when YAML reads it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(str(key))}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return str(value)
    text = redact(str(value))
    return text if _PLAIN.fullmatch(text) and text.lower() not in _NOT_TEXT else f'"{"".join(map(_escaped, text))}"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    return {"\n": "\\n", "\t": "\\t"}.get(char) or (
        f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
    )
