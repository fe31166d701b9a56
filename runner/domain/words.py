"""Numbers with their nouns."""

from __future__ import annotations


def pluralise(number: int, noun: str) -> str:
    """``1 file``, ``2 files``, ``1,153 files``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
