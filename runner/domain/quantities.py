"""Sizes, durations and counts: ``parse_*`` reads what people write in a job file, ``format_*`` writes what they read on a terminal."""

from __future__ import annotations

import re

_SIZE = re.compile(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([KMGTP]?i?B)\s*", re.IGNORECASE | re.ASCII)
# 24G, 24Gi, 24 gigabytes, 24GB+ and 24GB..48GB: a size in other tools.
_NEARLY_A_SIZE = re.compile(
    r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([KMGT])(i?)(?:[a-z]*|B?\+|B?\s?\.\..*)\s*", re.IGNORECASE | re.ASCII
)
_CLOCK = re.compile(r"(?:(\d{1,3})-)?(\d{1,3}):(\d{1,2})(?::(\d{1,2}))?", re.ASCII)
_WORD = r"(?:d(?:ays?)?|h(?:(?:ou)?rs?)?|m(?:in(?:ute)?s?)?|s(?:ec(?:ond)?s?)?)"
_IN_WORDS = re.compile(rf"(?:\d{{1,9}}(?:\.\d{{1,6}})?\s*{_WORD}[\s,]*(?:and\s*)?)+", re.IGNORECASE | re.ASCII)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([dhms])\s*", re.IGNORECASE | re.ASCII)
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def parse_size(written: object) -> int:
    """Bytes in ``20GiB``, ``1.5 TB`` or ``512MB``. ValueError otherwise: a number alone could be anything."""
    if isinstance(written, int | float) and not isinstance(written, bool):
        raise ValueError(f"needs a unit, such as {written if 0 < written <= 9999 else 20}GiB")
    match = _SIZE.fullmatch(written) if isinstance(written, str) else None
    if match is None:
        near = _NEARLY_A_SIZE.fullmatch(written) if isinstance(written, str) else None
        write = f": write {near[1]}{near[2].upper()}{near[3] and 'i'}B" if near else ""
        raise ValueError(f"must be a size, such as 20GiB or 512MB{write}")
    unit = match[2].lower().rstrip("b")
    base = 1024 if unit.endswith("i") else 1000
    return int(float(match[1]) * base ** _POWERS[unit.rstrip("i")])


def parse_duration(written: object) -> float:
    """Seconds in ``12h``, ``1h30m``, ``2d`` or ``45s``. ValueError otherwise: 12 alone could be seconds or hours."""
    if isinstance(written, int | float) and not isinstance(written, bool):
        raise ValueError(f"needs a unit, such as {written}h, {written}m or {written}s")
    text = written.strip() if isinstance(written, str) else ""
    seconds = _seconds(text)
    if seconds is None:
        near = _in_units(text)
        write = f": write {near}" if near and _seconds(near) else ""
        raise ValueError(f"must be a duration, such as 12h, 1h30m or 45s{write}")
    return seconds


def _seconds(text: str) -> float | None:
    parts = list(_DURATION.finditer(text))
    seconds = sum(float(part[1]) * _SECONDS[part[2].lower()] for part in parts)
    return seconds if parts and "".join(part[0] for part in parts) == text and 0 < seconds < 1e9 else None


def _in_units(text: str) -> str:
    """``1:30`` (hours and minutes), ``01:30:00``, Slurm's ``2-12:00:00`` and ``90 minutes`` with units; nothing for anything else."""
    if clock := _CLOCK.fullmatch(text):
        numbers = zip(clock.groups(), "dhms", strict=True)
        return "".join(f"{int(number)}{unit}" for number, unit in numbers if number and int(number))
    if _IN_WORDS.fullmatch(text):
        return "".join(f"{number}{word[0].lower()}" for number, word in re.findall(r"([\d.]+)\s*([a-zA-Z])", text))
    return ""


def format_size(count: float | None) -> str:
    """Bytes in decimal units: ``512 B``, ``7.9 MB``; ``?`` for an unknown number.

    Not ``rich.filesize.decimal``, which writes ``512 bytes`` and ``7.9 kB``, and would load rich where one line is printed.
    """
    if count is None:
        return "?"
    for unit in ("B", "KB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def format_duration(seconds: float | None) -> str:
    """``4.2s``, ``3m 20s``, ``2h 05m``; ``?`` for an unknown time."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {rest:02d}s"


def pluralise(number: int, noun: str) -> str:
    """A number with its noun: ``1 file``, ``2 files``, ``1,153 files``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
