"""What the process answers to prompts. Called here without its process (tests/e2e has that)."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from remote_payload.recipes.answers import Answer, Loaded
from remote_payload.train.errors import InputError
from runner.local_model.lines import prompt_line
from runner.local_model.messages import Message, Progress, SampleRequest, Sampling
from runner.local_model.worker import Refused
from runner.local_model.worker import sample as module
from runner.local_model.worker.sample import sample

RunOf = Callable[[str], Path]
GREEDY = Sampling(max_new_tokens=6, temperature=0)


def ask(folder: Path, base: Path | None, *prompts: str, device: str = "cpu", ask_base: bool = False) -> list[Message]:
    """Everything that is sent for these prompts."""
    sent: list[Message] = []
    lines = io.BytesIO(b"".join(map(prompt_line, prompts)))
    sample(SampleRequest(folder, base, ask_base, device, "float32", GREEDY), lines, sent.append)
    return sent


@pytest.mark.parametrize("name", ["qwen2", "qwen2-full"])
def test_prompts_are_answered_and_a_long_answer_reports_progress(
    run_of: RunOf, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = run_of(name)
    monkeypatch.setattr(module, "EVERY", -1.0)
    loading, loaded, *rest = ask(root / "models/best", root / "base", "The ship", "Who was", "The ship")
    assert loading == Progress(note="loading on cpu")
    assert isinstance(loaded, Loaded) and (loaded.model, loaded.base, loaded.device) == ("best", False, "cpu")
    answers = [message for message in rest if isinstance(message, Answer)]
    assert [answer.prompt for answer in answers] == ["The ship", "Who was", "The ship"]
    assert answers[0].text == answers[2].text and 0 < answers[0].tokens <= 6
    generating = rest.count(Progress(note="generating"))
    assert generating >= sum(answer.tokens for answer in answers)


def test_the_base_model_is_asked_from_its_folder_here(run_of: RunOf) -> None:
    root = run_of("qwen2")
    _, loaded, answer = ask(root / "models/best", root / "base", "The ship", ask_base=True)
    assert isinstance(loaded, Loaded) and loaded.base
    assert isinstance(answer, Answer) and answer.prompt == "The ship"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_there_is_refused(run_of: RunOf) -> None:
    with pytest.raises(Refused, match="there is no CUDA on this machine"):
        ask(run_of("qwen2-full") / "models/best", None, "The ship", device="cuda")


def test_a_classifier_gets_no_prompts(run_of: RunOf) -> None:
    with pytest.raises(InputError, match="not a causal_lm"):
        ask(run_of("bert") / "models/best", None, "The ship")
