"""Answers to many prompts, in batches with a bounded number of tokens, so that an evaluation needs no more memory than training."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from remote_payload.settings.generation import Answering
from remote_payload.train.data.batching import length_batches
from remote_payload.train.distributed import copied

# Rows × (prompt + answer) of one batch, which is the size of the key/value cache: 0.4 GB for Qwen 2.5 0.5B in bf16.
BATCH_TOKENS = {"cuda": 32_768}
BATCH_TOKENS_ELSEWHERE = 16_384


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; temperature 0 takes the most probable one."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0


def sampling_of(settings: Answering, seed: int) -> Sampling:
    """The settings that decide how tokens are chosen."""
    return Sampling(settings.max_new_tokens, settings.temperature, settings.top_p, settings.repetition_penalty, seed)


@dataclass(frozen=True)
class Answer:
    """The text generated for one prompt, without end token; ``ended`` is False when it stopped at the limit of new tokens."""

    ids: list[int]
    text: str
    ended: bool


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    end_tokens: Sequence[int],
    batch_tokens: int | None = None,
) -> list[Answer]:
    """An answer to each prompt (token ids), in the same order.

    Prompts of similar length share a batch of at most ``batch_tokens``, padding and answers included. A batch that runs out of
    memory is repeated in halves. Raises torch.OutOfMemoryError when a single prompt does not fit.
    """
    device = model.device.type
    budget = batch_tokens or BATCH_TOKENS.get(device, BATCH_TOKENS_ELSEWHERE)
    answers: dict[int, Answer] = {}
    waiting = length_batches([len(prompt) + sampling.max_new_tokens for prompt in prompts], budget)[::-1]
    while waiting:
        rows = waiting.pop()
        try:
            found = _generate_batch(model, tokenizer, [prompts[row] for row in rows], sampling, end_tokens, rows[0])
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
            print(f"generation: {len(rows)} prompts at once do not fit in memory, going on with {len(rows) // 2}")
            middle = len(rows) // 2
            waiting += [rows[middle:], rows[:middle]]
            continue
        answers.update(zip(rows, found, strict=True))
    return [answers[index] for index in range(len(prompts))]


def measure_latency(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    end_tokens: Sequence[int],
) -> dict[str, float]:
    """Milliseconds from prompt to finished answer, one prompt at a time: median, 95th percentile, worst, and tokens/s."""
    taken, tokens = [], 0
    for index, prompt in enumerate(prompts):
        started = time.perf_counter()
        (answer,) = _generate_batch(model, tokenizer, [prompt], sampling, end_tokens, index)  # ends with a copy to host
        taken.append(1000 * (time.perf_counter() - started))
        tokens += len(answer.ids) + answer.ended
    ordered = sorted(taken)
    return {
        "prompts": len(ordered),
        "median_ms": ordered[len(ordered) // 2],
        "p95_ms": ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
        "max_ms": ordered[-1],
        "tokens_per_second": 1000 * tokens / sum(taken),
    }


@torch.no_grad()
def _generate_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    end_tokens: Sequence[int],
    seed: int,
) -> list[Answer]:
    ids, mask = pad_left(prompts, tokenizer.pad_token_id)
    positions = getattr(model.config, "n_positions", None)  # GPT-2's are learned: there are no more of them
    room = sampling.max_new_tokens if positions is None else min(sampling.max_new_tokens, positions - ids.shape[1])
    with torch.random.fork_rng(enabled=sampling.temperature > 0, devices=_cuda_devices(model)):
        torch.manual_seed(sampling.seed + seed)  # the same answers however evaluation falls between training steps
        output = model.generate(
            input_ids=copied(ids, model.device),
            attention_mask=copied(mask, model.device),
            generation_config=_config(sampling, room, tokenizer.pad_token_id, end_tokens),
        )
    return [_answer(tokenizer, row, end_tokens) for row in output[:, ids.shape[1] :].tolist()]


def pad_left(prompts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """``[rows, longest]`` token ids and attention mask, the prompts at the right edge."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask


def _config(sampling: Sampling, new_tokens: int, pad: int, end_tokens: Sequence[int]) -> GenerationConfig:
    """Every option that matters, since transformers takes options that are missing from the model's own generation_config."""
    choice: dict[str, Any] = {"do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 50}
    if sampling.temperature > 0:
        choice = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    return GenerationConfig(
        max_new_tokens=new_tokens,
        repetition_penalty=sampling.repetition_penalty,
        pad_token_id=pad,
        eos_token_id=list(end_tokens),
        num_beams=1,
        use_cache=True,
        **choice,
    )


def _answer(tokenizer: PreTrainedTokenizerBase, ids: list[int], end_tokens: Sequence[int]) -> Answer:
    end = next((index for index, token in enumerate(ids) if token in end_tokens), None)
    kept = ids if end is None else ids[:end]
    return Answer(kept, tokenizer.decode(kept, skip_special_tokens=True), end is not None)


def _cuda_devices(model: PreTrainedModel) -> list[torch.device]:
    return [model.device] if model.device.type == "cuda" else []
