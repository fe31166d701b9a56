"""The protocol between laptop and agent: frames, requests, the exit slot. No I/O beyond the streams given.

One exec channel carries one agent for as long as a command needs it. The agent first prints a line holding the nonce it
was started with, because a login shell may print anything before it; after that line both directions carry frames:

    type (1 byte) | stream (4 bytes, big endian) | length (4 bytes, big endian) | payload

A stream is one request. The laptop opens it with REQUEST (JSON ``{"verb": …, "args": {…}}``), may follow with BLOB frames
(an empty one ends the upload), and may CANCEL it. The agent answers with any number of PROGRESS (JSON), LOG and EVENTS (8 bytes of
offset, then bytes) and ends the stream with exactly one RESULT or ERROR (JSON ``{"kind", "message", "hint"}``). BEAT, on
stream 0, is sent every few seconds of silence: nothing for ``SILENCE_LIMIT`` seconds means that the link is dead.
"""

import json
import struct
import zlib
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional

VERSION = 1

REQUEST, BLOB, CANCEL = b"Q", b"B", b"C"
RESULT, ERROR, PROGRESS, LOG, EVENTS, BEAT = b"R", b"E", b"P", b"L", b"V", b"H"
TYPES = frozenset((REQUEST, BLOB, CANCEL, RESULT, ERROR, PROGRESS, LOG, EVENTS, BEAT))

HEADER = struct.Struct(">cII")
OFFSET = struct.Struct(">Q")
MAX_JSON = 64 * 1024 * 1024  # a manifest of half a million files
MAX_ITEMS = 4000000  # commas and opening brackets in one such frame: a list of two-byte items takes many times its size in memory
MAX_PROGRESS = 8 * 1024 * 1024  # PROGRESS and ERROR frames; a status holds the last event of each type
MAX_BYTES = 1024 * 1024  # LOG, EVENTS and BLOB frames
BEAT_EVERY = 4.0  # seconds
SILENCE_LIMIT = 15.0  # seconds without a frame


# Bytes of each type's payload.
LIMITS = {REQUEST: MAX_JSON, RESULT: MAX_JSON, PROGRESS: MAX_PROGRESS, ERROR: MAX_PROGRESS, BLOB: MAX_BYTES}
LIMITS.update({LOG: MAX_BYTES + OFFSET.size, EVENTS: MAX_BYTES + OFFSET.size, CANCEL: 0, BEAT: 0})


class ProtocolError(Exception):
    """The other side sent what no version of this protocol sends; the connection cannot be used any more."""


class TornFrame(ProtocolError):
    """The connection ended inside a frame: the link broke."""


class Frame(NamedTuple):
    type: bytes
    stream: int
    payload: bytes

    def json(self) -> Dict[str, Any]:
        """The payload as a JSON object. Raises ProtocolError for anything else, NaN and Infinity included."""
        if sum(self.payload.count(mark) for mark in (b",", b"[", b"{")) > MAX_ITEMS:
            raise ProtocolError("frame holds more than %d items" % MAX_ITEMS)
        try:
            value = json.loads(self.payload.decode("utf-8"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ProtocolError("frame is not JSON: %s" % error) from None
        if not isinstance(value, dict):
            raise ProtocolError("frame is not a JSON object")
        return value


def _refuse_constant(name: str) -> Any:
    raise ValueError("%s is not JSON" % name)


def encode(kind: bytes, stream: int, payload: bytes = b"") -> bytes:
    """One frame as bytes."""
    return HEADER.pack(kind, stream, len(payload)) + payload


def encode_json(kind: bytes, stream: int, value: Mapping[str, Any]) -> bytes:
    """One JSON frame as bytes; non-finite floats become null, since JSON has none."""
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)
    return encode(kind, stream, text.encode("utf-8"))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def read_frame(read: Callable[[int], bytes]) -> Optional[Frame]:
    """The next frame from ``read(at most n) -> bytes``, None at a clean end. Raises ProtocolError on a torn, unknown or oversized one.

    The length is checked before anything is allocated: no peer can make this process allocate 4 GB.
    """
    header = _read_exactly(read, HEADER.size)
    if header is None:
        return None
    kind, stream, length = HEADER.unpack(header)
    if kind not in TYPES:
        raise ProtocolError("unknown frame type %r" % kind)
    limit = LIMITS.get(kind, 0)
    if length > limit:
        raise ProtocolError("frame of %d bytes is over the limit of %d" % (length, limit))
    payload = _read_exactly(read, length) if length else b""
    if payload is None:
        raise TornFrame("stream ended inside a frame")
    return Frame(kind, stream, payload)


def _read_exactly(read: Callable[[int], bytes], count: int) -> Optional[bytes]:
    parts: List[bytes] = []
    missing = count
    while missing:
        part = read(min(missing, 1 << 20))
        if not part:
            if parts:
                raise TornFrame("stream ended inside a frame")
            return None
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


# The exit slot: 64 bytes, allocated before the payload starts and rewritten in place, so that the exit code
# survives a full disk. "GR1 <kind> <number> <epoch seconds> <crc32>" padded with spaces to 63 bytes and a newline.
SLOT_SIZE = 64
SLOT_KINDS = ("exit", "signal", "timeout", "budget", "cancelled", "box")


class ExitRecord(NamedTuple):
    """How the payload ended: ``exit`` with a code, ``signal`` with its number, or ended by us (timeout: its time
    was over, budget: its money, cancelled, box: another box of the run failed or is lost) with the code seen."""

    kind: str
    number: int
    at: float


def empty_slot() -> bytes:
    """The slot as it is allocated: full length, without a record."""
    return b" " * (SLOT_SIZE - 1) + b"\n"


def encode_slot(record: ExitRecord) -> bytes:
    """An exit record as the 64 bytes of the slot."""
    if record.kind not in SLOT_KINDS:
        raise ValueError("unknown kind of exit: %r" % record.kind)
    body = "GR1 %s %d %.3f" % (record.kind, record.number, record.at)
    text = "%s %08x" % (body, zlib.crc32(body.encode("ascii")))
    return text.ljust(SLOT_SIZE - 1).encode("ascii") + b"\n"


def decode_slot(raw: bytes) -> Optional[ExitRecord]:
    """The record in the slot, None while it is empty or damaged (its checksum does not match)."""
    try:
        body, _, crc = raw.decode("ascii").rstrip().rpartition(" ")
        if not body or int(crc, 16) != zlib.crc32(body.encode("ascii")):
            return None
        tag, kind, number, at = body.split(" ")
        return ExitRecord(kind, int(number), float(at)) if tag == "GR1" and kind in SLOT_KINDS else None
    except ValueError:
        return None
