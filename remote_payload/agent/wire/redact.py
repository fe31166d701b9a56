"""Takes secrets out of text before it is shown, sent or kept: the same on the laptop and on the box."""

from typing import Iterable

from remote_payload.tokens import HUB_TOKEN, without_tokens

REDACTED = "[redacted]"
SHORTEST = 4  # characters; to replace each letter "a" would leave no text


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` with ``[redacted]`` in place of the given secrets (the longest first) and of everything that looks like a token."""
    for secret in sorted({secret for secret in secrets if len(secret) >= SHORTEST}, key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    return without_tokens(HUB_TOKEN.sub(REDACTED, text), REDACTED)
