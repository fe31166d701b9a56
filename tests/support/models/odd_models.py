"""Tiny random language models of many families: those whose packed loss is right, and those with a part that breaks it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from remote_payload.train.model.attention import ATTENTION

SHAPE = {
    "vocab_size": 384, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "pad_token_id": 1, "bos_token_id": 0,
    "eos_token_id": 3,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
MAMBA = {"mamba_d_state": 8, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_chunk_size": 16}

# A sliding window of 6 is shorter than the documents that are compared.
SOUND: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "llama": {"tie_word_embeddings": True},
    "qwen2": {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    "qwen3": {},
    "qwen3_moe": {**EXPERTS, "moe_intermediate_size": 32},
    "olmo2": {},
    "olmoe": EXPERTS,
    "gemma3_text": {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
    "mistral": {"sliding_window": 6},
    "phi3": {"sliding_window": 6},
    "granite": {},
}
# Convolutions, recurrent and state-space layers, linear attention, attention that does not go through our function.
LEAKING: dict[str, dict[str, Any]] = {
    "mamba": {"state_size": 8},
    "mamba2": {"state_size": 8, "num_heads": 4, "head_dim": 16, "expand": 2, "n_groups": 1, "chunk_size": 16},
    "falcon_mamba": {"state_size": 8},
    "rwkv": {"attention_hidden_size": 32},
    "lfm2": {"block_ff_dim": 64, "layer_types": ["conv", "full_attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "mamba_d_state": 8, "use_mamba_kernels": False},
    "falcon_h1": {**MAMBA, "mamba_d_ssm": 64},
    "bamba": {**MAMBA, "attn_layer_indices": [1]},
    "zamba2": {"mamba_d_state": 8, "n_mamba_heads": 4, "layers_block_type": ["mamba", "hybrid"], "mamba_ngroups": 1,
               "num_mem_blocks": 1, "chunk_size": 16},
    "recurrent_gemma": {"lru_width": 32, "block_types": ["recurrent", "attention"], "attention_window_size": 16},
    "minimax": {"num_local_experts": 2, "layer_types": ["linear_attention", "full_attention"], "block_size": 16},
    "bloom": {"n_layer": 2, "n_head": 4},
}  # fmt: skip


def odd_model(family: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random model in fp32 of SOUND or LEAKING (or with ``changes`` of any family), with the attention that recipes use."""
    values = {**SHAPE, **(SOUND.get(family) or LEAKING.get(family) or {}), **changes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = AutoConfig.for_model(family, **values)
        return AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION).float().eval()


class CappedHead(nn.Linear):
    """An output head that caps what it gives."""

    def forward(self, hidden: Tensor) -> Tensor:
        return 30.0 * torch.tanh(super().forward(hidden) / 30.0)


class ScaledHead(nn.Linear):
    """An output head that scales what it gives."""

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden) * 0.8


def llama_with_head(head: type[nn.Linear], seed: int = 0) -> LlamaForCausalLM:
    """A tiny Llama whose logits are not a product with the head's weight, though no name in its config says so."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM._from_config(LlamaConfig(**SHAPE), attn_implementation=ATTENTION).float().eval()
        altered = head(SHAPE["hidden_size"], SHAPE["vocab_size"], bias=False)
    altered.weight = model.lm_head.weight
    model.lm_head = altered
    return model
