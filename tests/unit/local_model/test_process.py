"""The worker's process: what it is given, and what is made of its end. The programs here stand where the worker would."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.domain.errors import SmokeTestFailed
from runner.local_model import process
from runner.local_model.process import run_worker, worker_environment

TOKEN = "hf_" + "Q" * 34


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Makes ``python -m runner.local_model.worker`` run this text instead."""

    def put(text: str) -> None:
        folder = tmp_path / "source/runner/smoke"
        folder.mkdir(parents=True)
        for package in (folder, folder.parent):
            (package / "__init__.py").touch()
        (folder / "worker.py").write_text("import json, sys, os, time, signal\nrequest = json.load(sys.stdin)\n" + text)
        monkeypatch.setattr(process, "SOURCE", tmp_path / "source")

    return put


def test_the_result_and_the_progress_come_through(program: Callable[[str], None]) -> None:
    program("print(json.dumps({'note': 'loading'}), flush=True)\nprint(json.dumps({'result': {'got': request}}))")
    heard: list[dict[str, Any]] = []
    assert run_worker({"a": "ü"}, heard.append) == {"got": {"a": "ü"}}
    assert heard == [{"note": "loading"}]


def test_no_secret_of_this_machine_reaches_the_worker(
    program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "WANDB_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "SSH_AUTH_SOCK",
        "HF_HOME",
    ):
        monkeypatch.setenv(name, TOKEN)
    program("print(json.dumps({'result': {'environment': dict(os.environ), 'cwd': os.getcwd(), 'path': sys.path}}))")
    seen = run_worker({}, lambda said: None)
    assert TOKEN not in str(seen)
    assert seen["environment"]["HF_HUB_OFFLINE"] == "1"
    assert seen["environment"]["PYTORCH_ENABLE_MPS_FALLBACK"] == "1"
    assert seen["environment"]["HF_HOME"] == seen["cwd"] != os.getcwd()
    assert not os.path.exists(seen["cwd"])  # gone with the process
    assert os.path.expanduser("~/.cache/huggingface/token") != seen["environment"]["HF_TOKEN_PATH"]


def test_variables_that_libraries_need_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    kept = worker_environment("/nowhere")
    assert kept["PATH"] == os.environ["PATH"] and kept["CUDA_VISIBLE_DEVICES"] == "1"


def test_an_error_is_told_in_its_own_words_without_escapes_or_tokens(program: Callable[[str], None]) -> None:
    said = f"bad \x1b]52;c;aGk=\x07 model {TOKEN}"
    program(f"print(json.dumps({{'error': {{'message': {said!r}, 'hint': 'try'}}}}))")
    with pytest.raises(SmokeTestFailed) as failed:
        run_worker({}, lambda said: None)
    assert str(failed.value) == "bad  model [redacted]"
    assert failed.value.hint == "try"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("sys.stderr.write('first\\nlast words'); sys.exit(3)", "ended with code 3:\nfirst\nlast words"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was out of memory, or was killed"),
        ("print('not json', flush=True); time.sleep(60)", "said something that is no answer"),
        ("print(json.dumps([1]), flush=True); time.sleep(60)", "said something that is no answer"),
    ],
)
def test_a_worker_that_dies_or_babbles_is_a_failure(program: Callable[[str], None], text: str, complaint: str) -> None:
    program(text)
    with pytest.raises(SmokeTestFailed, match=complaint):
        run_worker({}, lambda said: None)


def test_a_silent_worker_is_given_up_on(program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "SILENCE", 0.3)
    program("time.sleep(600)")
    with pytest.raises(SmokeTestFailed, match="fell silent"):
        run_worker({}, lambda said: None)


def test_a_flood_on_stderr_does_not_stop_it_or_fill_the_message(program: Callable[[str], None]) -> None:
    program("for _ in range(2000): sys.stderr.write('x' * 10_000)\nsys.exit(1)")
    with pytest.raises(SmokeTestFailed) as failed:
        run_worker({}, lambda said: None)
    assert len(str(failed.value)) < 2000


def test_the_worker_is_this_very_python(program: Callable[[str], None]) -> None:
    program("print(json.dumps({'result': {'python': sys.executable}}))")
    assert run_worker({}, lambda said: None) == {"python": sys.executable}
