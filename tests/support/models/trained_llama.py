"""A small Llama that was trained, for what random weights cannot show: that a model says what it has learnt, whatever loads it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.support.models.exported import llama_base
from tests.support.models.language_data import run_recipe_here, write_lines

# Of characters that the tokenizer has: transformers leaves out its bytes, which it takes for special tokens.
LEARNT = {
    "Who was the mayor in 1901?": "Brown, of the town.",
    "When did the ship leave?": "The spring of 1823.",
    "May I copy the work?": "The licensor grants it.",
}
TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}{% if message.role == 'assistant' %}</s>{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
SETTINGS: dict[str, Any] = {
    "max_length": 128, "epochs": 60, "precision": "fp32", "batch": {"size": 3, "micro": 3}, "generation": {"examples": 0},
    "evaluation": {"every_epochs": None}, "checkpoint": {"every_epochs": None},
}  # fmt: skip


def trained_llama(root: Path) -> Path:
    """The ``models/best`` of a run of ``sft`` below ``root``: a LoRA that has learnt LEARNT, on a model whose answers are others.

    That model is of the recipe too, which trained all its weights.
    """
    (root / "turns.jinja").write_text(TEMPLATE)
    answers = list(LEARNT.values())
    llama_base(root / "random")
    base = _train(root, "base", root / "random", answers[1:] + answers[:1], {"rank": 0}, rate=0.002)
    return _train(root, "tuned", base, answers, {"rank": 16, "alpha": 32, "dropout": 0.0}, rate=0.005)


def _train(root: Path, name: str, model: Path, answers: Iterable[str], lora: dict[str, Any], rate: float) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
        for asked, answer in zip(LEARNT, answers, strict=True)
    ]
    data = str(write_lines(root / f"{name}.jsonl", rows))
    told = {
        "model": str(model),
        "train": data,
        "validation": data,
        "chat_template": str(root / "turns.jinja"),
        "lora": lora,
    }
    assert run_recipe_here("sft", root / name, {**SETTINGS, **told, "optimizer": {"learning_rate": rate}}) == 0
    return root / name / "outputs/models/best"
