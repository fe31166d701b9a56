"""Secrets in text: found by their issuers' formats, and ordinary words left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_payload.agent.run import causes
from remote_payload.agent.serve import without_secrets
from remote_payload.agent.wire.protocol import ExitRecord
from remote_payload.tokens import KINDS, find_token, without_tokens
from runner.domain.flow import flow

# In two pieces each, so that this file itself can be pushed.
TOKENS = {
    "hf_" + "abcdefghijABCDEFGHIJabcdefghijABCD": "a Hugging Face token",
    "hf_" + "lowercase1and2digits3are4tokens5to": "a Hugging Face token",
    "hf_oauth_" + "eyJhbGciOi.JIUzI1Ni-": "a Hugging Face token",
    "hf_jwt_" + "eyJhbGciOi.eyJzdWIiOiI2Mj.c2ln": "a Hugging Face token",
    "api_org_" + "abcdefghijABCDEFGHIJabcdefghijABCD": "a Hugging Face token",
    "AKIA" + "IOSFODNN7EXAMPLE": "an AWS access key",
    "ghp_" + "a1B2" * 9: "a GitHub token",
    "github_pat_" + "11ABCDEFG0" * 8: "a GitHub token",
    "sk-" + "Ab3d" * 12: "an API key (sk-…)",
    "sk-ant-" + "api03-" + "Ab3d" * 12: "an API key (sk-…)",
    "xoxb-" + "1234567890-abcdefghijklmnop": "a Slack token",
    "-----BEGIN " + "PRIVATE KEY-----\n": "a private key",
    "-----BEGIN RSA " + "PRIVATE KEY-----\r\n": "a private key",
}


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("around", ["{}", "token={}\n", "'{}'", '{{"a": "{}"}}', "https://x:{}@example.org"])
def test_a_token_is_found_whatever_stands_around_it(token: str, around: str) -> None:
    text = around.format(token)
    assert find_token(text.encode()) == TOKENS[token]
    assert token.strip() not in without_tokens(text, "…")


def test_the_box_and_the_laptop_redact_every_form() -> None:
    """``TOKENS`` has one for each beginning's kind of rest, so that a new form without an example fails here."""
    assert {kind.rest for kind in KINDS} == {
        kind.rest for kind in KINDS for token in TOKENS if token.startswith(kind.beginnings)
    }
    for token in (token.strip() for token in TOKENS):
        text = f"{token} is refused\n"
        on_the_box = causes.explain(ExitRecord("exit", 1, 1.0), text, 0, False).evidence
        in_an_error_of_the_box = without_secrets({"message": text}, {})["message"]
        on_the_laptop = flow(text)
        for shown in (on_the_box, in_an_error_of_the_box, on_the_laptop):
            assert shown is not None and token not in shown and "[redacted]" in shown


@pytest.mark.parametrize(
    "text",
    [
        "hf_hub_download",
        "from huggingface_hub import hf_raise_for_status",
        "my_hf_" + "abcdefghijABCDEFGHIJabcdefghijABCD",
        "hf_" + "a" * 34,
        "hf_" + "a_word_" * 6,
        "hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "AKIA",
        "MYAKIA" + "IOSFODNN7EXAMPLE",
        "task-sk-learn-pipeline-with-a-very-long-name-indeed",
        "sk-learn-pipeline-with-a-very-long-name-indeed-and-more",
        "ghp_short",
        "-----BEGIN PUBLIC KEY-----\n",
        "says PRIVATE KEY----- somewhere",
    ],
)
def test_ordinary_words_are_no_tokens(text: str) -> None:
    assert find_token(text.encode()) is None
    assert without_tokens(text, "…") == text


@given(st.text())
def test_any_text_can_be_asked(text: str) -> None:
    assert find_token(without_tokens(text, "…").encode("utf-8", "surrogatepass")) is None
