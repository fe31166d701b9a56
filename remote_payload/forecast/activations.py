"""What autograd keeps of a layer for the backward pass.

Counted are bytes per token and layer, as multiples of four widths (as Korthikanti et al. 2022, "Reducing Activation Recomputation in
Large Transformer Models", section 4.1, do for GPT). The multiples are those of transformers' own modules with SDPA attention; the
tests count what autograd keeps.
"""

from __future__ import annotations

from typing import NamedTuple

from remote_payload.forecast.architecture import Architecture, adapted_projections
from remote_payload.forecast.shape import Precision, TrainingShape


class Kept(NamedTuple):
    """Bytes that a layer keeps per token for the backward pass: these multiples of the model's widths, added up."""

    hidden: int
    query: int
    key_value: int
    inner: int


# "frozen" is a layer whose matrices have no gradient: their inputs are not kept, and adapters come on top (``kept_per_layer``).
KEPT: dict[str, dict[Precision, Kept]] = {
    "llama": {
        "half": Kept(16, 4, 4, 8), "mixed": Kept(26, 4, 4, 8), "full": Kept(24, 8, 8, 16),
        "frozen": Kept(8, 4, 4, 6), "frozen full": Kept(8, 8, 8, 12),
    },
    "qwen2": {
        "half": Kept(16, 4, 4, 8), "mixed": Kept(26, 4, 4, 8), "full": Kept(24, 8, 8, 16),
        "frozen": Kept(8, 4, 4, 6), "frozen full": Kept(8, 8, 8, 12),
    },
    "olmo2": {
        "half": Kept(20, 12, 12, 8), "mixed": Kept(26, 12, 12, 8), "full": Kept(24, 16, 16, 16),
        "frozen": Kept(8, 8, 8, 6), "frozen full": Kept(8, 12, 12, 12),
    },
    "gemma3_text": {
        "half": Kept(36, 12, 12, 8), "mixed": Kept(38, 12, 12, 8), "full": Kept(40, 16, 16, 16),
        "frozen": Kept(16, 8, 8, 6), "frozen full": Kept(16, 12, 12, 12),
    },
    "gpt2": {
        "half": Kept(16, 0, 0, 10), "mixed": Kept(20, 0, 0, 10), "full": Kept(32, 0, 0, 20),
        "frozen": Kept(16, 0, 0, 8), "frozen full": Kept(24, 0, 0, 16),
    },
    "bert": {
        "half": Kept(16, 0, 0, 4), "mixed": Kept(24, 0, 0, 4), "full": Kept(32, 0, 0, 8),
        "frozen": Kept(16, 0, 0, 2), "frozen full": Kept(24, 0, 0, 4),
    },
}  # fmt: skip
# Of GPT-2's multiple of inner: what its gelu_new keeps between its seven kernels. The same function in one kernel keeps none of it.
GELU_NEW: dict[Precision, int] = {"half": 6, "mixed": 6, "full": 12, "frozen": 6, "frozen full": 12}


def kept_per_layer(model: Architecture, shape: TrainingShape) -> int:
    """Bytes that one layer keeps per token for the backward pass (``KEPT``, and what adapters, masks and dropout add)."""
    per = KEPT[model.family][shape.precision]
    inner = per.inner - (GELU_NEW[shape.precision] if model.fused_activation else 0)
    kept = per.hidden * model.hidden + per.query * model.query + per.key_value * model.key_value + inner * model.inner
    kept += 4 * model.heads  # attention's log-sum-exp
    kept += model.dropout * 2 * model.hidden  # masks, one byte an element, after attention and after the MLP
    width = 4 if shape.precision in ("full", "frozen full") else 2
    if shape.masked:
        kept += width * shape.length
    if _repeats_heads(model, shape):
        kept += 2 * width * (model.query - model.key_value)
    return kept + _kept_by_adapters(model, shape, width)


def _kept_by_adapters(model: Architecture, shape: TrainingShape, width: int) -> int:
    """Each adapter keeps its own copy of its input, the mask of its dropout, and what goes from A to B."""
    if not shape.lora_rank:
        return 0
    each = width + bool(shape.lora_dropout)
    adapted = adapted_projections(model, shape.lora_targets)
    return sum(each * projection.inputs + width * shape.lora_rank for projection in adapted)


def _repeats_heads(model: Architecture, shape: TrainingShape) -> bool:
    """Whether keys and values are copied to the width of the queries: by kernels that do not know grouped queries."""
    if model.key_value_heads == model.heads:
        return False
    with_mask = shape.masked and model.key_value_heads > 1  # one head is repeated without a copy
    return shape.repeated_heads or with_mask or model.head_size > 256


def residual_per_layer(model: Architecture, shape: TrainingShape) -> int:
    """Bytes per token of what goes from one layer to the next: all that activation checkpointing keeps of a layer."""
    return model.hidden * (2 if shape.precision in ("half", "frozen") else 4)


def outside_layers(model: Architecture, shape: TrainingShape) -> int:
    """Bytes per token, while the loss is computed, of embeddings, last norm, the rows that go into the head and their gradient."""
    return model.hidden * {"half": 16, "frozen": 12}.get(shape.precision, 24)


def backward_of_layer(model: Architecture, shape: TrainingShape) -> int:
    """Bytes per token of what flows through a layer at once: gradients of its MLP, of a norm in fp32, or the input of an adapter."""
    width = 4 if shape.precision in ("full", "frozen full") else 2
    through_mlp = 3 * width * model.inner + 2 * residual_per_layer(model, shape)
    through_norm = 24 * model.hidden  # five products in fp32, and what flows
    return max(through_mlp, through_norm, _input_of_adapter(model, shape))


def _input_of_adapter(model: Architecture, shape: TrainingShape) -> int:
    """Peft casts an adapter's input to fp32 and drops a part of it in fp32, beside the input itself."""
    if not shape.lora_rank:
        return 0
    widest = max((each.inputs for each in adapted_projections(model, shape.lora_targets)), default=0)
    return (10 if shape.lora_dropout else 6) * widest + 10 * model.hidden
