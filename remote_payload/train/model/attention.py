"""Attention in a packed row (``data/packing.py``), under which no document sees another.

A packed row comes with its documents' bounds (``cu_seq_lens_q``: the names that transformers passes through to its
attention functions). ``ATTENTION`` is registered with transformers: with bounds it attends inside
each document (torch's variable-length flash kernel on CUDA, one scaled-dot-product call a document elsewhere, so that
no ``T × T`` mask exists anywhere); without bounds it is transformers' own ``sdpa``, so the same model also generates
and takes padded batches.

A box may have its own torch, and ``varlen_attn`` has more parameters in later versions: 2.10 has only ``is_causal``, 2.11 has
``scale`` and ``window_size``, 2.12 has ``enable_gqa`` too. So its parameters are inspected, not its version.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10
    varlen_attn = None

ATTENTION = "gpurun_packed"


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    document_lengths: Sequence[int] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each document: ``query`` ``[1, heads, T, width]`` gives ``[1, T, heads, width]``.

    With bounds the mask is ignored: the one that transformers makes for sliding windows does not know them. ``max_length_q`` and
    ``document_lengths`` are what the bounds say; without them the host waits for the device to tell them, in every layer.
    """
    if cu_seq_lens_q is None:
        if attention_mask is not None and not attention_mask.numel():
            attention_mask = None  # it was ``nothing_masked``
        attended: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return attended
    if torch.is_autocast_enabled(query.device.type):  # norms with fp32 weights (Olmo2) give fp32 queries and keys
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if _has_flash_kernel(query, dropout):
        longest = max_length_q or int(cu_seq_lens_q.diff().max())  # any upper bound will do
        window = sliding_window if sliding_window is not None and sliding_window < longest else None
        reason = _kernel_lacks(query.shape[-1], scaling, window)
        if reason is None:
            return _attend_with_kernel(query, key, value, cu_seq_lens_q, longest, scaling, window).unsqueeze(0), None
        _print_once(f"attention: one call a document, since torch {torch.__version__}'s varlen_attn takes no {reason}")
    lengths = cu_seq_lens_q.diff().tolist() if document_lengths is None else list(document_lengths)
    return _attend_one_by_one(query, key, value, lengths, dropout, scaling, sliding_window), None


def nothing_masked(input_ids: Tensor) -> Tensor:
    """An ``attention_mask`` without elements, for a model with ``ATTENTION`` whose rows are packed or full.

    It says what no mask says. Given none, transformers reads positions and padding back from the device in every forward pass, to
    see whether the rows are packed; a mask of four dimensions it hands to the attention as it is.
    """
    return input_ids.new_empty((1, 1, 0, 0), dtype=torch.bool)


def sees_all_before(config: PreTrainedConfig) -> bool:
    """Whether every layer attends to all earlier tokens of a row: no sliding windows, no chunks."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    limited = any(getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    return kinds == {"full_attention"} and not limited


def repeats_heads(config: PreTrainedConfig, half: bool) -> bool:
    """Whether attention in packed rows copies keys and values to the width of the queries (``half``: it computes in bf16)."""
    kernel = varlen_attn is not None and half and not getattr(config, "attention_dropout", 0.0)
    return not (kernel and _kernel_takes("enable_gqa"))


def _has_flash_kernel(query: Tensor, dropout: float) -> bool:
    half = query.dtype in (torch.bfloat16, torch.float16)
    if varlen_attn is None or not query.is_cuda or not half or dropout or query.shape[-1] > 256:
        return False
    return bool(torch.cuda.get_device_capability(query.device) >= (8, 0))  # older GPUs have no such kernel


def _kernel_lacks(width: int, scaling: float | None, window: int | None) -> str | None:
    """The parameter that this call needs and the installed ``varlen_attn`` does not have; None when it has all."""
    usual = scaling is None or math.isclose(scaling, width**-0.5, rel_tol=1e-6)
    if not usual and not _kernel_takes("scale"):
        return "scale"
    if window is not None and not _kernel_takes("window_size"):
        return "window_size"
    return None


def _attend_with_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    longest: int,
    scaling: float | None,
    window: int | None,
) -> Tensor:
    """``[T, heads, width]`` from the flash kernel, called the way that the installed torch has it."""
    groups = query.shape[1] // key.shape[1]
    options: dict[str, Any] = {"scale": scaling} if _kernel_takes("scale") else {}
    if _kernel_takes("window_size"):
        options["window_size"] = (-1 if window is None else window - 1, 0)
    else:
        options["is_causal"] = True
    if _kernel_takes("enable_gqa"):
        options["enable_gqa"] = True
    elif groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    repeated = "; key and value heads are repeated, since it takes no enable_gqa"
    _print_once(
        f"attention: varlen_attn of torch {torch.__version__}, a flash kernel"
        + (repeated if groups > 1 and not _kernel_takes("enable_gqa") else "")
    )
    rows = [states[0].transpose(0, 1) for states in (query, key, value)]  # [T, heads, width]
    return varlen_attn(*rows, bounds, bounds, longest, longest, **options)


@torch.compiler.assume_constant_result  # torch.compile must not trace into inspect
def _kernel_takes(name: str) -> bool:
    return name in _parameters_of(varlen_attn)


@cache
def _parameters_of(function: Any) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


_printed: set[str] = set()


def _print_once(line: str) -> None:
    """A line of the log, from the first rank, the first time that it is true."""
    if not torch.compiler.is_compiling() and line not in _printed:
        _printed.add(line)
        if os.environ.get("RANK", "0") == "0":
            print(line, flush=True)


def _attend_one_by_one(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: list[int],
    dropout: float,
    scaling: float | None,
    sliding_window: int | None,
) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    documents = zip(query.split(lengths, dim=2), key.split(lengths, dim=2), value.split(lengths, dim=2), strict=True)
    outputs = []
    for q, k, v in documents:
        length = q.shape[2]
        mask = (
            _window(length, sliding_window, q.device)
            if sliding_window is not None and length > sliding_window
            else None
        )
        outputs.append(
            torch.nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling, is_causal=mask is None
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous()


def _window(length: int, width: int, device: torch.device) -> Tensor:
    position = torch.arange(length, device=device)
    distance = position[:, None] - position[None, :]
    return (distance >= 0) & (distance < width)


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """transformers' mask, except for packed rows: their bounds are enough, and ``T × T`` booleans are not cheap."""
    packed = kwargs.get("attention_mask") is None and not kwargs.get("allow_is_causal_skip", True)
    return None if packed else sdpa_mask(*args, **kwargs)


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(ATTENTION, _mask)
