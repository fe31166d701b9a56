"""What a forecast needs to know of a training run beside its model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GIB = 1024**3
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

# How a run computes: "half" with bf16 weights, "mixed" with fp32 weights under bf16 autocast, "full" with fp32 throughout,
# "frozen" with a bf16 base under LoRA, "frozen full" with an fp32 one.
Precision = Literal["half", "mixed", "full", "frozen", "frozen full"]


@dataclass(frozen=True)
class TrainingShape:
    """Settings of a run. Lengths in tokens; ``micro_batch`` in sequences on one GPU."""

    micro_batch: int
    length: int
    weights: str = "float32"  # the dtype parameters are stored in
    autocast: bool = True  # bf16 computation
    lora_rank: int = 0
    lora_targets: tuple[str, ...] | str = "all-linear"
    lora_dropout: float = 0.0
    checkpoint_activations: bool = False
    language_head: bool = True
    logit_chunk: int = 256 << 20  # bytes of fp32 logits that exist at once (train/model/causal.py, CHUNK_BYTES)
    pairs: bool = False  # DPO: a chunk's logits are computed again in the backward pass
    masked: bool = False  # padded batches hand SDPA a mask that is kept per layer
    shards: int = 1  # GPUs that weights, gradients and optimizer are split over (FSDP)
    repeated_heads: bool = (
        False  # attention without grouped queries (torch before 2.12): keys and values as wide as the queries
    )

    @property
    def tokens(self) -> int:
        """Of one micro-batch."""
        return self.micro_batch * self.length

    @property
    def precision(self) -> Precision:
        if self.lora_rank:
            return "frozen" if self.autocast or self.weights != "float32" else "frozen full"
        if self.weights != "float32":
            return "half"
        return "mixed" if self.autocast else "full"
