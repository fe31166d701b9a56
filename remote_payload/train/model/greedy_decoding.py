"""Greedy decoding of one prompt at a time. One machine stores the result, and another must compute the same: the smoke test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from remote_payload.train.data.chat import prompt_ids

NEW_TOKENS = 16


class SmokePrompt(TypedDict):
    """A line of ``smoke/inputs.jsonl``. A chat template has written the special tokens already: then none are added."""

    prompt: str
    add_special_tokens: bool


@torch.no_grad()
def decode_greedily(
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    inputs: Sequence[SmokePrompt],
    end_tokens: Sequence[int],
    new_tokens: int = NEW_TOKENS,
) -> tuple[Tensor, Tensor]:
    """For each input, on the CPU: fp32 logits ``[rows, vocabulary]`` at the prompt's last token, and int64 tokens.

    The tokens ``[rows, new_tokens]`` are the most probable ones, without penalties. After an end token, and where the model has no
    more positions, they are -1.
    """
    all_logits, all_tokens = [], torch.full((len(inputs), new_tokens), -1)
    limit = getattr(network.config, "n_positions", None)
    for row, question in enumerate(inputs):
        ids = prompt_ids(tokenizer, question["prompt"], question["add_special_tokens"])
        given, cache = torch.tensor([ids], device=network.device), None
        for position in range(new_tokens):
            output = network(input_ids=given, past_key_values=cache, use_cache=True, logits_to_keep=1)
            logits, cache = output.logits[0, -1].float(), output.past_key_values
            if position == 0:
                all_logits.append(logits.cpu())
            token = int(logits.argmax())
            all_tokens[row, position] = token
            if token in end_tokens or (limit and len(ids) + position + 1 >= limit):
                break
            given = torch.tensor([[token]], device=network.device)
    return torch.stack(all_logits), all_tokens
