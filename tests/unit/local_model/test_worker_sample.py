"""What the process answers to prompts. Called here without its process (tests/e2e has that)."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from remote_payload.recipes.answers import Answered, Loaded
from remote_payload.settings.generation import Answering
from remote_payload.settings.sample import SampleSettings
from runner.local_model.lines import prompt_line
from runner.local_model.messages import Message, Progress, SampleRequest
from runner.local_model.worker import Refused
from runner.local_model.worker import sample as module
from runner.local_model.worker.sample import sample
from tests.support.models.smoke_models import LABELS

RunOf = Callable[[str], Path]
GREEDY = Answering(max_new_tokens=6)


def ask(folder: Path, base: Path | None, *prompts: str, device: Any = "cpu", both: bool = False) -> list[Message]:
    """Everything that is sent for these prompts."""
    sent: list[Message] = []
    lines = io.BytesIO(b"".join(map(prompt_line, prompts)))
    settings = SampleSettings(both, device=device, answering=GREEDY)
    sample(SampleRequest("mine", folder, base, "float32", settings), lines, sent.append)
    return sent


@pytest.mark.parametrize("name", ["qwen2", "qwen2-full"])
def test_prompts_are_answered_and_a_long_answer_reports_progress(
    run_of: RunOf, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = run_of(name)
    monkeypatch.setattr(module, "EVERY", -1.0)
    loading, loaded, *rest = ask(root / "models/best", root / "base", "The ship", "Who was", "The ship")
    assert loading == Progress(note="loading on cpu")
    assert isinstance(loaded, Loaded) and (loaded.model, loaded.kind, loaded.device) == ("best", "causal_lm", "cpu")
    answered = [message for message in rest if isinstance(message, Answered)]
    assert [each.prompt for each in answered] == ["The ship", "Who was", "The ship"]
    answers = [each.answers[0] for each in answered]
    assert answers[0].text == answers[2].text and 0 < answers[0].tokens <= 6
    generating = rest.count(Progress(note="generating"))
    assert generating >= sum(answer.tokens for answer in answers)


@pytest.mark.parametrize("name", ["qwen2", "qwen2-full"])
def test_the_base_model_is_asked_too_from_its_folder_here(run_of: RunOf, name: str) -> None:
    root = run_of(name)
    *_, answered = ask(root / "models/best", root / "base", "The ship", both=True)
    assert isinstance(answered, Answered) and [each.base for each in answered.answers] == [True, False]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_there_is_refused(run_of: RunOf) -> None:
    with pytest.raises(Refused, match="there is no CUDA on this machine"):
        ask(run_of("qwen2-full") / "models/best", None, "The ship", device="cuda")


def test_a_classifier_says_its_classes(run_of: RunOf) -> None:
    root = run_of("bert")
    _, loaded, answered = ask(root / "models/best", root / "base", "The ship")
    assert isinstance(loaded, Loaded) and loaded.kind == "classifier"
    assert isinstance(answered, Answered) and answered.classified is not None and not answered.answers
    assert set(answered.classified.probabilities) == set(LABELS)
