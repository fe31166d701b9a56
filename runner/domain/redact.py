"""Secrets taken out of text before it is shown or kept."""

from __future__ import annotations

import re
from collections.abc import Iterable

from runner.domain.tokens import without_tokens

REDACTED = "[redacted]"
# The hub's tokens, cut short or not: of a browser login, a CI job, a user, an organisation. Names such as hf_hub_download stay.
_HUB_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_(?:oauth|jwt)_[A-Za-z0-9._-]{16,}|hf_[A-Za-z0-9]{16,}|api_org_[A-Za-z0-9]{16,})"
)
_SHORTEST = 4  # redacting a secret of one letter would leave no text


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` with what looks like a token and the given secret values replaced by ``[redacted]``; the longest secret first."""
    for secret in sorted({secret for secret in secrets if len(secret) >= _SHORTEST}, key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    return without_tokens(_HUB_TOKEN.sub(REDACTED, text), REDACTED)
