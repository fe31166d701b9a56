"""Which arithmetic the model runs in: bf16 for matrix products where the device has it, fp32 for trained weights, heads, losses."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn


def resolve_precision(wanted: str, device: torch.device) -> torch.dtype:
    """The dtype of matrix products: ``auto`` is bf16 on a GPU that computes in it (Ampere and later), fp32 elsewhere."""
    if wanted == "auto":
        able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if able else torch.float32
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[wanted]


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """The context of a forward pass: nothing in fp32, autocast otherwise."""
    return torch.autocast(device.type, dtype=dtype) if dtype != torch.float32 else nullcontext()


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """The context of a head or a loss inside such a forward pass: no autocast. Cast the input with ``.float()`` too."""
    disabled: AbstractContextManager[Any] = torch.autocast(device.type, enabled=False)
    return disabled


def checkpoint_activations(model: nn.Module) -> None:
    """Recomputes each layer's activations in the backward pass.

    Non-reentrant, and with gradients enabled on the embeddings' output: otherwise nothing that enters the first layer of a
    frozen base needs a gradient, and adapters silently stay where they are.
    """
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    model.enable_input_require_grads()
    if hasattr(model, "config"):
        model.config.use_cache = False
