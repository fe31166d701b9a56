"""Takes secrets out of text that leaves the box or stays on it."""

import re
from typing import Iterable

TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,}")
REDACTED = "[secret]"


def redact(text: str, values: Iterable[str] = ()) -> str:
    """``text`` without ``values``, nor anything that looks like a hub token."""
    for value in values:
        if value:
            text = text.replace(value, REDACTED)
    return TOKEN.sub(REDACTED, text)
