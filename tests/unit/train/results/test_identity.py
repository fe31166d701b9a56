"""What is published with a model names no machine, no user and no token."""

from __future__ import annotations

import getpass
import socket
from pathlib import Path

import pytest

from remote_payload.train.results.identity import without_identity
from tests.support.models.toy_training import toy_run


def test_names_paths_and_tokens_are_taken_out_at_any_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "box-17")
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.chdir(tmp_path)
    run = toy_run(tmp_path)
    record = {
        "/home/ada/data": ["~", {"host": "ssh ada@box-17", "steps": 3, "none": None}],
        "here": f"{tmp_path}/data/a.jsonl",
        "words": "adaptive box-170",
    }
    assert without_identity(record, run) == {
        "~/data": ["~", {"host": "ssh <user>@<host>", "steps": 3, "none": None}],
        "here": "./data/a.jsonl",
        "words": "adaptive box-170",
    }


@pytest.mark.parametrize("prefix", ["hf_", "hf_oauth_", "api_org_", "sk-", "ghp_", "github_pat_", "glpat-", "AKIA"])
def test_a_token_in_a_diff_is_taken_out(prefix: str, tmp_path: Path) -> None:
    token = prefix + "a1B2c3D4e5F6g7H8"
    assert without_identity(f"+TOKEN = '{token}'", toy_run(tmp_path)) == "+TOKEN = '<token>'"
