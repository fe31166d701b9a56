"""Values of all kinds in the words of the page."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence

from runner.domain.terminal import clean

LONGEST = 300  # characters of a value


def in_words(value: object) -> str:
    """A JSON value as a person would write it: ``1,566``, ``0.0003``, ``q_proj, k_proj``, ``yes``."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return figure(value)
    if isinstance(value, Mapping):
        return clean(json.dumps(value, default=str), LONGEST)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return clean(", ".join(str(each) for each in value), LONGEST) or "none"
    return clean(value, LONGEST)


def figure(value: float | None) -> str:
    """A measured number with five digits; a dash where there is none."""
    if value is None or value != value:
        return "–"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.5g}"


def moment(at: float | None) -> str:
    """Epoch seconds as date and time of this machine's zone; empty for a time that no calendar has."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at is not None else ""
    except (OverflowError, ValueError, OSError):
        return ""
