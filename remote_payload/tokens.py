"""What a secret looks like in text: the one list, for the laptop and for the box.

``find_token`` and ``without_tokens`` match whole tokens in their issuers' formats, so that ordinary files may be searched with them.
``HUB_TOKEN`` also matches a hub token of which only the beginning was printed; it is for text that is shown, where a word too many may go.
"""

import functools
import re
from typing import Iterator, NamedTuple, Optional, Pattern, Tuple


class Kind(NamedTuple):
    """One form of secret: its name, how such tokens begin, and a regular expression for what follows the beginning."""

    name: str
    beginnings: Tuple[str, ...]
    rest: str


# Alphabet and length as the issuers document them. The first excludes placeholders such as hf_xxxxxxxxxxxxxxxx.
KINDS = (
    Kind("a Hugging Face token", ("hf_",), r"(?!([A-Za-z0-9])\1{15})[A-Za-z0-9]{30,40}(?![A-Za-z0-9_])"),
    Kind("a Hugging Face token", ("hf_oauth_", "hf_jwt_"), r"[A-Za-z0-9._-]{16,4096}"),
    Kind("a Hugging Face token", ("api_org_",), r"(?!([A-Za-z0-9])\1{15})[A-Za-z0-9]{30,40}(?![A-Za-z0-9_])"),
    Kind("an AWS access key", ("AKIA", "ASIA"), r"[A-Z2-7]{16}(?![A-Za-z0-9_])"),
    Kind("a GitHub token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"[A-Za-z0-9]{36,255}(?![A-Za-z0-9_])"),
    Kind("a GitHub token", ("github_pat_",), r"[A-Za-z0-9_]{60,255}"),
    Kind(
        "an API key (sk-…)",
        ("sk-",),
        r"(?=[A-Za-z_-]{0,80}[0-9])(?:[A-Za-z0-9]{1,40}-){0,4}[A-Za-z0-9_]{32,255}(?![A-Za-z0-9_])",
    ),
    Kind("a Slack token", ("xoxa-", "xoxb-", "xoxp-", "xoxr-", "xoxs-"), r"[0-9]{8,20}-[A-Za-z0-9-]{16,255}"),
    Kind("a private key", ("-----BEGIN ",), r"(?:[A-Z]{1,20} ){0,3}PRIVATE KEY-----(?=\s|\\n)"),
)
# A hub token, whole or truncated: of a browser login, a CI job, an organisation, a user. Names such as hf_hub_download and
# hf_transfer are none: a short one needs a digit.
HUB_TOKEN = re.compile(
    r"hf_(?:oauth|jwt)_[A-Za-z0-9._-]{8,}"
    r"|(?:api_org_|hf_)(?:[A-Za-z0-9]{16,}|(?=[A-Za-z]*[0-9])[A-Za-z0-9]{8,})"
)


def find_token(content: bytes) -> Optional[str]:
    """What kind of secret ``content`` holds (``"a Hugging Face token"``), or None."""
    return next((name for name, _ in _found_in(content)), None)


def without_tokens(text: str, replacement: str) -> str:
    """The text with ``replacement`` in place of each token."""
    raw = text.encode("utf-8", "surrogatepass")
    for _, pattern in _found_in(raw):
        raw = pattern.sub(replacement.encode(), raw)
    return raw.decode("utf-8", "surrogatepass")


def _found_in(content: bytes) -> Iterator[Tuple[str, Pattern[bytes]]]:
    for kind in KINDS:
        for beginning in kind.beginnings:
            if beginning.encode("ascii") in content:
                pattern = _pattern(beginning, kind.rest)
                if pattern.search(content):
                    yield kind.name, pattern


@functools.lru_cache(maxsize=None)
def _pattern(beginning: str, rest: str) -> Pattern[bytes]:
    """Compiled when its beginning is met for the first time: an agent that shows no secret should not wait for twenty patterns.

    It begins with a literal, which ``re`` finds many times faster than anything else. The character before may not be a word's.
    """
    before = "" if beginning.startswith("-") else "(?<![A-Za-z0-9_-]%s)" % beginning
    return re.compile((beginning + before + rest).encode("ascii"))
