"""Reference predictions of a causal language model, saved with it, so that another machine can check that it computes the same.

smoke/inputs.jsonl           {"prompt": …, "add_special_tokens": …} a line
smoke/expected.safetensors   "logits", fp32 [rows, vocabulary], after each prompt; "tokens", int64 [rows, new tokens]
smoke/about.json             {"dtype", "device", "rows", "end_tokens"}
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from remote_payload.train.files import write_json, write_json_lines
from remote_payload.train.model.causal_files import load_causal
from remote_payload.train.model.greedy_decoding import SmokePrompt, decode_greedily


def write_causal_smoke(
    folder: Path, base_path: str | None, inputs: Sequence[SmokePrompt], end_tokens: Sequence[int], device: torch.device
) -> Tensor:
    """Loads the model in ``folder`` again as the other machine will, in fp32, and stores its predictions for the inputs; gives the logits
    after each."""
    network, tokenizer = load_causal(folder, base_path, device, torch.float32)
    logits, tokens = decode_greedily(network, tokenizer, inputs, end_tokens)
    smoke = folder / "smoke"
    smoke.mkdir()
    write_json_lines(smoke / "inputs.jsonl", inputs)
    save_file({"logits": logits, "tokens": tokens}, smoke / "expected.safetensors")
    facts = {"dtype": "float32", "device": device.type, "rows": len(inputs), "end_tokens": list(end_tokens)}
    write_json(smoke / "about.json", facts)
    return logits
