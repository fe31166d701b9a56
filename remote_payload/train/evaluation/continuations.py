"""A list of prompts continued by a model, for the log and ``reports/samples.jsonl``."""

from __future__ import annotations

import json
from typing import Any

from remote_payload.train.data.chat import prompt_ids
from remote_payload.train.evaluation.generation import Sampling, generate
from remote_payload.train.files import write_text
from remote_payload.train.run import Run

TRIED = Sampling(max_new_tokens=64, temperature=0.8, top_p=0.95, repetition_penalty=1.1)


def with_room(network: Any, ids: list[int]) -> list[int]:
    """A prompt that leaves at least half of the model's positions (GPT-2's are learned) to its answer; its end is kept."""
    positions = getattr(network.config, "n_positions", None)
    return ids[-max(positions // 2, 1) :] if positions else ids


def write_continuations(run: Run, network: Any, tokenizer: Any, prompts: list[str]) -> None:
    """What the model makes of each prompt, sampled the same way every time. Does nothing without prompts."""
    if not prompts or not run.world.main:
        return
    network.eval()
    ids = [with_room(network, prompt_ids(tokenizer, prompt, add_special_tokens=True)) for prompt in prompts]
    answers = generate(network, tokenizer, ids, TRIED, [tokenizer.eos_token_id])
    rows = [{"prompt": prompt, "text": answer.text} for prompt, answer in zip(prompts, answers, strict=True)]
    run.reports.mkdir(parents=True, exist_ok=True)
    write_text(run.reports / "samples.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    for row in rows:
        run.log(f"{row['prompt']} → {row['text']}")
