"""Model FLOPs utilisation: what the model's arithmetic needs, over what the hardware could do in the same time.

    MFU = FLOPs per real token x real tokens per second / (devices x peak FLOP/s)

Real tokens only, no padding; recomputation for activation checkpointing is not counted as work. Peaks are the vendors' dense bf16
figures (no sparsity).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from remote_payload.train.distributed import World

# TFLOP/s, bf16 with fp32 accumulation, dense. The first name that occurs in the device's name counts.
PEAK = (
    ("B200", 2250.0),
    ("H200", 989.4),
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.4),
    ("H800", 989.4),
    ("GH200", 989.4),
    ("A100", 311.8),
    ("A800", 311.8),
    ("A40", 149.7),
    ("A30", 165.0),
    ("A10G", 70.0),
    ("A10", 125.0),
    ("L40S", 362.0),
    ("L40", 181.0),
    ("L4", 121.0),
    ("RTX PRO 6000", 503.8),
    ("RTX 6000 Ada", 364.2),
    ("RTX A6000", 154.8),
    ("RTX A5000", 111.1),
    ("RTX 5090", 209.5),
    ("RTX 5080", 112.6),
    ("RTX 4090", 165.2),
    ("RTX 4080 SUPER", 104.4),
    ("RTX 4080", 97.5),
    ("RTX 3090 Ti", 80.0),
    ("RTX 3090", 71.2),
    ("RTX 3080", 59.5),
)


def peak_flops(device_name: str) -> float | None:
    """Peak bf16 FLOP/s of a GPU by its name; None for one that is not in the table."""
    return next((peak * 1e12 for name, peak in PEAK if name in device_name), None)


def mfu(flops_per_second: float, world: World) -> float | None:
    """Share of the peak of all the run's devices; None on a CPU, an unknown GPU or an uncounted model."""
    if world.device.type != "cuda" or not flops_per_second:
        return None
    peak = peak_flops(torch.cuda.get_device_name(world.device))
    return flops_per_second / (peak * world.size) if peak else None


def flops_per_token(model: nn.Module, config: Any, length: float, causal: bool) -> float:
    """FLOPs of forward and backward for one token of a text of ``length`` tokens.

    Matrices: 2 a parameter forward, 2 for the gradient of the activations, 2 more for its own gradient where it is trained: 6·N in
    full, 4·N for a frozen base (https://arxiv.org/abs/2001.08361). Looking up an embedding costs nothing; a tied one works once, as
    the output. Attention: scores and mixing, 4·length·heads·head size a layer forward, half of it when causal, times 3.
    """
    tied = getattr(config, "tie_word_embeddings", False) and causal
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    matrices = [p for p in model.parameters() if p.dim() >= 2 and (tied or id(p) not in embeddings)]
    work = sum((6 if p.requires_grad else 4) * p.numel() for p in matrices)
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return float(work + 12 * config.num_hidden_layers * width * length * (0.5 if causal else 1.0))


def peak_memory(device: torch.device) -> int | None:
    """Most bytes that tensors have held on a GPU since the process began; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
