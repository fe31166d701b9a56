"""Model FLOPs utilisation: what the model's arithmetic needs, over what the hardware could do in the same time.

    MFU = FLOPs per real token x real tokens per second / (devices x peak FLOP/s)

Real tokens only, no padding. Peaks are the vendors' dense bf16 figures (no sparsity).

The convention is that of PaLM (https://arxiv.org/abs/2204.02311, appendix B), nanoGPT and torchtitan:

- Attention is counted in full, 12 x length x heads x head size a token and layer: **a causal mask does not halve it**. Papers on flash
  attention halve it; their figures are not comparable.
- What is computed twice counts once: neither activation checkpointing nor the scores that a flash kernel computes again in its
  backward pass count as work. ``torch.utils.flop_counter`` counts the latter, so its attention is 14/12 of ours with such a kernel.
- Matrices are counted as they are multiplied: 6 FLOPs a parameter and token (https://arxiv.org/abs/2001.08361), 4 where the parameter
  is frozen, 2 where no gradient has to reach its input either. The output head counts for the targets that the loss counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from remote_payload.train.data.packing import Document
from remote_payload.train.distributed import World
from remote_payload.train.model.causal import CausalLoss

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

# FLOPs a parameter and token of a matrix product, and of its two gradients.
_FORWARD, _INPUT_GRADIENT, _OWN_GRADIENT = 2, 2, 2
# Layers that read the same input, by the names that the families give them.
_SIDE_BY_SIDE = ({"q_proj", "k_proj", "v_proj"}, {"query", "key", "value"}, {"gate_proj", "up_proj"})


def peak_flops(device_name: str) -> float | None:
    """Peak bf16 FLOP/s of a GPU by its name; None for one that is not in the table."""
    return next((peak * 1e12 for name, peak in PEAK if name in device_name), None)


def mfu(flops_per_second: float, world: World) -> float | None:
    """Share of the peak of all the run's devices; None on a CPU, an unknown GPU or an uncounted model."""
    if world.device.type != "cuda" or not flops_per_second:
        return None
    peak = peak_flops(torch.cuda.get_device_name(world.device))
    return flops_per_second / (peak * world.size) if peak else None


def flops_of_documents(model: CausalLoss, documents: Sequence[Document]) -> float:
    """``flops_per_token`` of a language model that learns these documents."""
    counted = sum(document.counted for document in documents)
    return flops_per_token(model.network, model.head, [len(document) for document in documents], counted)


def flops_per_token(network: nn.Module, head: Tensor, lengths: Sequence[int], counted: int) -> float:
    """FLOPs of forward and backward for one token, on average over texts of ``lengths`` tokens.

    ``network`` is a decoder or encoder, with or without LoRA; ``head`` the weight of what reads its output, which is applied to
    ``counted`` of all those tokens (targets that the loss counts, or one a text).
    """
    tokens = sum(lengths)
    each = _FORWARD + _INPUT_GRADIENT + (_OWN_GRADIENT if head.requires_grad else 0)
    outputs: float = each * head.numel() * counted / tokens
    return matrix_flops(network, head) + outputs + attention_flops(network, lengths)


def matrix_flops(network: nn.Module, head: Tensor) -> float:
    """FLOPs of one token in all matrices of ``network`` except ``head``. Looking up an embedding costs nothing.

    The gradient reaches a matrix's input where something before it is trained: with LoRA not those that read the embeddings.
    """
    left_out = {id(head), *(id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding))}
    work = 0
    place: tuple[str, ...] | None = None
    trained_before = trained_here = False
    for name, parameter in network.named_parameters():
        if _place(name) != place:
            place, trained_before, trained_here = _place(name), trained_before or trained_here, False
        if parameter.dim() >= 2 and id(parameter) not in left_out:
            each = _FORWARD + (_OWN_GRADIENT if parameter.requires_grad else 0)
            if trained_before or ".lora_B." in name:  # what B reads comes from A, which is trained
                each += _INPUT_GRADIENT
            work += each * parameter.numel()
        trained_here = trained_here or parameter.requires_grad
    return work


def _place(name: str) -> tuple[str, ...]:
    """Where in the network a parameter works: the same for a layer, its adapter, and the layers that read the same input."""
    layer = re.split(r"\.(?:base_layer|lora_[AB])\.", name)[0]
    layer = layer if layer != name else name.rpartition(".")[0]
    parent, _, own = layer.rpartition(".")
    return (parent, *next((sorted(names) for names in _SIDE_BY_SIDE if own in names), [own]))


def attention_flops(network: nn.Module, lengths: Sequence[int]) -> float:
    """FLOPs of one token in scores and mixing of all layers, on average over texts of ``lengths`` tokens.

    A query is counted with every key of its text, or in a layer with a sliding window with as many as the window reaches.
    """
    config: Any = network.config
    heads: int = config.num_attention_heads
    width = heads * int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    window = int(getattr(config, "sliding_window", None) or 0)
    kinds: list[str] = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    windowed = sum(kind == "sliding_attention" for kind in kinds) if window else 0
    reach = 2 * window - 1 if getattr(config, "use_bidirectional_attention", False) else window
    pairs = (len(kinds) - windowed) * sum(length * length for length in lengths)
    pairs += windowed * sum(length * min(length, reach) for length in lengths)
    return 12 * width * pairs / sum(lengths)


def peak_memory(device: torch.device) -> int | None:
    """Most bytes that tensors have held on a GPU since the process began; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
