"""Secrets taken out of text."""

from __future__ import annotations

import pytest

from remote_payload.agent.wire.redact import redact

TOKEN = "hf_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7"


@pytest.mark.parametrize(
    "text",
    [
        f"HF_TOKEN={TOKEN}",
        f"Authorization: Bearer {TOKEN}\n",
        f'{{"token": "{TOKEN}"}}',
        f"https://user:{TOKEN}@huggingface.co/acme/tiny",
        "hf_oauth_eyJhbGciOi.eyJzdWIiOiI2Mj-x_y.c2lnbmF0dXJl",
        "hf_jwt_eyJhbGciOi.eyJzdWIiOiI2Mj.c2lnbmF0dXJl",
        "api_org_AbCdEfGhIjKlMnOpQrStUv",
        "truncated: hf_a1B2c3D4e5",
        "truncated: api_org_a1B2c3D4e5",
    ],
)
def test_a_hub_token_disappears_wherever_it_stands(text: str) -> None:
    shown = redact(text)
    assert "[redacted]" in shown
    for piece in (TOKEN[3:], "eyJ", "c2lnbmF0dXJl", "AbCdEfGh", "a1B2c3"):
        assert piece not in shown


def test_names_that_begin_like_a_token_stay() -> None:
    text = "hf_hub_download, hf_transfer, hf_xet and hf_cache_home are names"
    assert redact(text) == text


def test_given_secrets_disappear_the_longest_first() -> None:
    assert redact("key=abcdef-longer and abcdef", ["abcdef", "abcdef-longer"]) == "key=[redacted] and [redacted]"


def test_a_secret_too_short_to_be_one_leaves_the_text_readable() -> None:
    assert redact("a banana", ["a", ""]) == "a banana"
