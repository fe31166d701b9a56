"""Sizes and durations as people write them."""

from __future__ import annotations

import re

_SIZE = re.compile(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([KMGTP]?i?B)\s*", re.IGNORECASE | re.ASCII)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([dhms])\s*", re.IGNORECASE | re.ASCII)
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def size(written: object) -> int:
    """Bytes in ``20GiB``, ``1.5 TB`` or ``512MB``. ValueError otherwise: a number alone could be anything."""
    if isinstance(written, int | float) and not isinstance(written, bool):
        raise ValueError(f"needs a unit, such as {written if 0 < written <= 9999 else 20}GiB")
    match = _SIZE.fullmatch(written) if isinstance(written, str) else None
    if match is None:
        raise ValueError("must be a size, such as 20GiB or 512MB")
    unit = match[2].lower().rstrip("b")
    base = 1024 if unit.endswith("i") else 1000
    return int(float(match[1]) * base ** _POWERS[unit.rstrip("i")])


def duration(written: object) -> float:
    """Seconds in ``12h``, ``1h30m``, ``2d`` or ``45s``. ValueError otherwise: 12 alone could be seconds or hours."""
    if isinstance(written, int | float) and not isinstance(written, bool):
        raise ValueError(f"needs a unit, such as {written}h, {written}m or {written}s")
    text = written.strip() if isinstance(written, str) else ""
    parts = list(_DURATION.finditer(text))
    seconds = sum(float(part[1]) * _SECONDS[part[2].lower()] for part in parts)
    if not parts or "".join(part[0] for part in parts) != text or not 0 < seconds < 1e9:
        raise ValueError("must be a duration, such as 12h, 1h30m or 45s")
    return seconds
