"""A list of prompts that a model continues, for the log and ``reports/samples.jsonl``."""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from remote_payload.train.data.chat import prompt_ids
from remote_payload.train.evaluation.generation import Sampling, generate
from remote_payload.train.files import write_json_lines
from remote_payload.train.run import Run

TRIED = Sampling(max_new_tokens=64, temperature=0.8, top_p=0.95, repetition_penalty=1.1)


def with_room(network: PreTrainedModel, ids: list[int]) -> list[int]:
    """The end of a prompt, short enough to leave half of the model's positions to the answer (GPT-2's positions are learned)."""
    positions = getattr(network.config, "n_positions", None)
    return ids[-max(positions // 2, 1) :] if positions else ids


def write_continuations(
    run: Run, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str]
) -> None:
    """Samples a continuation of each prompt, with the same seed every time. Does nothing without prompts."""
    if not prompts or not run.world.main:
        return
    network.eval()
    ids = [with_room(network, prompt_ids(tokenizer, prompt, add_special_tokens=True)) for prompt in prompts]
    answers = generate(network, tokenizer, ids, TRIED, [tokenizer.eos_token_id])
    rows = [{"prompt": prompt, "text": answer.text} for prompt, answer in zip(prompts, answers, strict=True)]
    run.reports.mkdir(parents=True, exist_ok=True)
    write_json_lines(run.reports / "samples.jsonl", rows)
    for row in rows:
        run.log(f"{row['prompt']} → {row['text']}")
