"""The process that loads models: what it is given, and what its end means. The programs here run in place of the worker."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from remote_payload.recipes.answers import Answer, Answered, Loaded
from remote_payload.settings.sample import SampleSettings
from runner.domain.errors import ArtifactError, SmokeTestFailed
from runner.local_model import process
from runner.local_model.lines import prompt_line
from runner.local_model.messages import Progress, SampleRequest, SmokeRequest, SmokeResult
from runner.local_model.process import model_process, worker_environment

TOKEN = "hf_" + "Q" * 34
REQUEST = SmokeRequest(
    folder=Path("/ü\n/model"),
    base=None,
    described=True,
    kind="classifier",
    adapter=False,
    device="cpu",
    dtype="float32",
    labels=("a", "b"),
    max_length=8,
    inputs=Path("/inputs"),
    expected=None,
)
SAMPLE = SampleRequest("mine", Path("/model"), Path("/base"), "float32", SampleSettings())
# What every stand-in begins with: `result(text)` sends a result with that text.
PRELUDE = """
import json, sys, os, time, signal
request = json.loads(sys.stdin.readline())
def say(**value):
    print(json.dumps(value), flush=True)
def result(text):
    predictions = {"samples": 1, "seconds": 0.5, "texts": [text], "labelled": []}
    say(result={"device": "cpu", "device_name": "cpu", "torch": "2", "load_seconds": 1, "peak_memory": 9, "predictions": predictions})
"""


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Makes ``python -m runner.local_model.worker`` run this text instead."""

    def put(text: str) -> None:
        folder = tmp_path / "source/runner/local_model"
        folder.mkdir(parents=True)
        for package in (folder, folder.parent):
            (package / "__init__.py").touch()
        (folder / "worker.py").write_text(PRELUDE + text)
        monkeypatch.setattr(process, "SOURCE", tmp_path / "source")

    return put


def smoke(progress: Callable[[Progress], None] = lambda _: None) -> str:
    """The text in the result of the program."""
    with model_process(REQUEST, SmokeTestFailed, meaning="Nothing was compared.") as model:
        return model.receive(SmokeResult, progress).predictions.texts[0]


def test_the_result_and_the_progress_come_through(program: Callable[[str], None]) -> None:
    program(
        "say(progress={'note': 'loading'})\nsay(progress={'done': 1, 'total': 2})\nresult(request['smoke']['folder'])"
    )
    heard: list[Progress] = []
    assert smoke(heard.append) == "/ü\n/model"
    assert heard == [Progress(note="loading"), Progress(done=1, total=2)]


def test_prompts_are_answered_one_by_one_by_one_process(program: Callable[[str], None]) -> None:
    program(
        "say(loaded={'model': 'best', 'kind': 'causal_lm', 'device': 'cpu', 'step': 4, 'metrics': {'loss': 1.5}})\n"
        "for line in iter(sys.stdin.readline, ''):\n"
        "    say(progress={'note': 'generating'})\n"
        "    answer = {'base': False, 'sample': 1, 'text': str(os.getpid()), 'tokens': 1, 'seconds': 0.1, 'ended': True}\n"
        "    say(answered={'prompt': json.loads(line)['prompt'], 'answers': [answer]})\n"
    )
    with model_process(SAMPLE, ArtifactError) as model:
        assert model.receive(Loaded) == Loaded("best", "causal_lm", "cpu", step=4, metrics={"loss": 1.5})
        answers = []
        for prompt in ("one", "two"):
            model.send(prompt_line(prompt))
            answers.append(model.receive(Answered))
    assert [answer.prompt for answer in answers] == ["one", "two"]
    (one,), (other,) = (each.answers for each in answers)
    assert isinstance(one, Answer) and one.text == other.text
    assert not alive(int(one.text))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_process_ends_with_the_block_also_after_ctrl_c(program: Callable[[str], None]) -> None:
    program("say(loaded={'model': str(os.getpid()), 'kind': 'causal_lm', 'device': 'cpu'})\ntime.sleep(600)")
    pid = 0
    with contextlib.suppress(KeyboardInterrupt), model_process(SAMPLE, ArtifactError) as model:
        pid = int(model.receive(Loaded).model)
        raise KeyboardInterrupt
    assert pid and not alive(pid)


def test_ctrl_c_while_an_answer_is_awaited_ends_the_process_and_the_watchdog(program: Callable[[str], None]) -> None:
    """A watchdog that stayed would keep gpurun from ending until its time is over."""
    program("say(loaded={'model': str(os.getpid()), 'kind': 'causal_lm', 'device': 'cpu'})\ntime.sleep(600)")
    with model_process(SAMPLE, ArtifactError) as model:
        pid = int(model.receive(Loaded).model)
        threading.Timer(0.3, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            model.receive(Answered)
    assert not alive(pid)
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(10)
            assert not thread.is_alive()


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
    program("result(json.dumps({'environment': dict(os.environ), 'cwd': os.getcwd(), 'path': sys.path}))")
    answered = smoke()
    assert TOKEN not in answered
    seen = json.loads(answered)
    assert seen["environment"]["HF_HUB_OFFLINE"] == "1"
    assert seen["environment"]["PYTORCH_ENABLE_MPS_FALLBACK"] == "1"
    assert seen["environment"]["HF_HOME"] == seen["cwd"] != os.getcwd()
    assert not os.path.exists(seen["cwd"])  # gone with the process
    assert os.path.expanduser("~/.cache/huggingface/token") != seen["environment"]["HF_TOKEN_PATH"]


def test_variables_that_libraries_need_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("GPURUN_DEBUG", "1")
    kept = worker_environment("/nowhere")
    assert kept["PATH"] == os.environ["PATH"] and kept["CUDA_VISIBLE_DEVICES"] == "1"
    assert kept["GPURUN_DEBUG"] == "1"  # so that the traceback of a model that does not load is shown


def test_an_error_is_shown_without_escapes_or_tokens(program: Callable[[str], None]) -> None:
    program(f"say(error={{'message': {f'bad {chr(27)}]52;c;aGk={chr(7)} model {TOKEN}'!r}, 'hint': 'try'}})")
    with pytest.raises(SmokeTestFailed) as failed:
        smoke()
    assert str(failed.value) == "bad  model [redacted]"
    assert failed.value.hint == "try"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("sys.stderr.write('first\\nlast words'); sys.exit(3)", "ended with code 3:\nfirst\nlast words"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was out of memory, or was killed"),
        ("print('not json', flush=True); time.sleep(60)", "printed a line that is not an answer"),
        ("print(json.dumps([1]), flush=True); time.sleep(60)", "printed a line that is not an answer"),
        (
            "say(loaded={'model': 'm', 'kind': 'causal_lm', 'device': 'cpu'}); time.sleep(60)",
            "printed a line that is not an answer",
        ),
        (
            "say(result={'device': 'cpu'}); time.sleep(60)",
            r"printed an impossible value \(result\.device_name: nothing",
        ),
        ("say(progress={'done': 'x'}); time.sleep(60)", r"printed an impossible value \(progress.done: 'x'"),
    ],
)
def test_a_worker_that_dies_or_prints_nonsense_is_a_failure(
    program: Callable[[str], None], text: str, complaint: str
) -> None:
    program(text)
    with pytest.raises(SmokeTestFailed, match=complaint) as failed:
        smoke()
    assert failed.value.meaning == "Nothing was compared."


def test_a_worker_that_dies_between_two_prompts_is_a_failure_of_its_own_kind(program: Callable[[str], None]) -> None:
    program("say(loaded={'model': 'm', 'kind': 'causal_lm', 'device': 'cpu'})\nsys.stdin.close()\nsys.exit(5)")
    with model_process(SAMPLE, ArtifactError) as model:
        model.receive(Loaded)
        time.sleep(0.3)
        model.send(prompt_line("x" * 100_000))
        with pytest.raises(ArtifactError, match="ended with code 5") as failed:
            model.receive(Answered)
    assert type(failed.value) is ArtifactError


def test_a_silent_worker_is_killed(program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "SILENCE", 0.3)
    program("time.sleep(600)")
    with pytest.raises(SmokeTestFailed, match="was silent for"):
        smoke()


def test_only_the_wait_for_an_answer_counts_as_silence(
    program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user may think about the next prompt for as long as they like."""
    program(
        "say(loaded={'model': 'm', 'kind': 'causal_lm', 'device': 'cpu'})\nsys.stdin.readline()\n"
        "say(answered={'prompt': 'here'})\nsys.stdin.readline()\ntime.sleep(600)"
    )
    with model_process(SAMPLE, ArtifactError) as model:
        model.receive(Loaded)
        monkeypatch.setattr(process, "SILENCE", 1.0)
        time.sleep(1.5)
        model.send(prompt_line("first"))
        assert model.receive(Answered).prompt == "here"
        model.send(prompt_line("second"))
        with pytest.raises(ArtifactError, match="was silent for 1 s"):
            model.receive(Answered)


def test_a_flood_on_stderr_does_not_stop_it_or_fill_the_message(program: Callable[[str], None]) -> None:
    program("for _ in range(2000): sys.stderr.write('x' * 10_000)\nsys.exit(1)")
    with pytest.raises(SmokeTestFailed) as failed:
        smoke()
    assert len(str(failed.value)) < 2000


def test_the_worker_is_this_very_python(program: Callable[[str], None]) -> None:
    program("result(sys.executable)")
    assert smoke() == sys.executable
