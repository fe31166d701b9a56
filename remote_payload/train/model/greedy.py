"""Greedy decoding one prompt at a time: what one machine says and another must repeat for the smoke test to pass.

smoke/inputs.jsonl           {"prompt": …, "add_special_tokens": …} a line
smoke/expected.safetensors   "logits", fp32 [rows, vocabulary], after each prompt; "tokens", int64 [rows, new tokens]
smoke/about.json             {"dtype", "device", "rows", "end_tokens"}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from remote_payload.train.data.chat import prompt_ids
from remote_payload.train.files import write_json, write_text
from remote_payload.train.model.causal import load_causal

NEW_TOKENS = 16


@torch.no_grad()
def decode_greedily(
    network: Any,
    tokenizer: PreTrainedTokenizerBase,
    inputs: Sequence[dict[str, Any]],
    end_tokens: Sequence[int],
    new_tokens: int = NEW_TOKENS,
) -> tuple[Tensor, Tensor]:
    """Of each input, on the CPU: fp32 logits ``[rows, vocabulary]`` at the prompt's last token, and int64 tokens.

    ``[rows, new_tokens]`` are plain argmax, no penalties; after an end token, and past the model's positions, -1.
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


def write_causal_smoke(
    folder: Path,
    base_path: str | None,
    inputs: Sequence[dict[str, Any]],
    end_tokens: Sequence[int],
    device: torch.device,
) -> None:
    """Loads the model in ``folder`` again as the other machine will, in fp32, and stores what it says to the inputs."""
    network, tokenizer = load_causal(folder, base_path, device, torch.float32)
    logits, tokens = decode_greedily(network, tokenizer, inputs, end_tokens)
    smoke = folder / "smoke"
    smoke.mkdir()
    write_text(smoke / "inputs.jsonl", "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in inputs))
    save_file({"logits": logits, "tokens": tokens}, smoke / "expected.safetensors")
    facts = {"dtype": "float32", "device": device.type, "rows": len(inputs), "end_tokens": list(end_tokens)}
    write_json(smoke / "about.json", facts)
