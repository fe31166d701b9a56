"""Greedy decoding of one prompt at a time. One machine stores the result, and another must compute the same: the smoke test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from remote_payload.train.data.chat import prompt_ids
from remote_payload.train.distributed import copied

NEW_TOKENS = 16
# After how many tokens the host looks for the end: to read one it waits for the device. Tokens after the end are not kept.
READ_EVERY = {"cuda": 16}


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
        room = min(new_tokens, max(limit - len(ids), 1)) if limit else new_tokens
        logits, tokens = _decode(network, copied(torch.tensor([ids]), network.device), room, end_tokens)
        all_logits.append(logits)
        all_tokens[row, : len(tokens)] = torch.tensor(tokens)
    return torch.stack(all_logits).cpu(), all_tokens


def _decode(network: PreTrainedModel, given: Tensor, room: int, end_tokens: Sequence[int]) -> tuple[Tensor, list[int]]:
    """The logits at the prompt's last token, on the device, and at most ``room`` tokens, the last of them the end token if there is one."""
    tokens: list[int] = []
    waiting: list[Tensor] = []  # tokens that were not read yet
    first: Tensor | None = None
    cache = None
    for position in range(1, room + 1):
        output = network(input_ids=given, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits, cache = output.logits[0, -1].float(), output.past_key_values
        first = logits if first is None else first
        waiting.append(logits.argmax())
        given = waiting[-1].view(1, 1)
        if position % READ_EVERY.get(network.device.type, 1) == 0 or position == room:
            tokens += torch.stack(waiting).tolist()
            waiting.clear()
            end = next((index for index, token in enumerate(tokens) if token in end_tokens), None)
            if end is not None:
                tokens = tokens[: end + 1]
                break
    assert first is not None  # there is room for one token at least
    return first, tokens
