"""What a training run will need: GPU memory by part, and disk. From config.json and settings, before money is spent.

Standard library only: the laptop's ``gpurun check`` asks the same functions as the box, which records the measured
value beside the predicted one.

Activations are counted as the tensors autograd keeps for the backward pass, per token and layer, as multiples of four
widths (as Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", section 4.1, do for
GPT). The multiples are those of transformers' own modules with SDPA attention; the tests count what autograd keeps.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, TypedDict

from remote_payload.forecast.architecture import Architecture, adapted_projections, count_parameters, lora_parameters

GIB = 1024**3
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
CUDA_CONTEXT = int(0.8 * GIB)  # driver context, cuBLAS workspaces, kernels of torch 2.x on Ampere to Hopper
FRAGMENTATION = 0.06  # of what the allocator hands out

# Bytes kept per token and layer = a * hidden + b * query + c * key_value + d * inner, by how the weights compute:
# "half" are bf16 weights, "mixed" fp32 weights under bf16 autocast, "full" fp32, "frozen" a bf16 base under LoRA.
KEPT = {
    "llama": {"half": (16, 4, 4, 8), "mixed": (26, 4, 4, 8), "full": (24, 8, 8, 16), "frozen": (18, 6, 4, 8)},
    "qwen2": {"half": (16, 4, 4, 8), "mixed": (26, 4, 4, 8), "full": (24, 8, 8, 16), "frozen": (18, 6, 4, 8)},
    "olmo2": {"half": (20, 12, 12, 8), "mixed": (26, 12, 12, 8), "full": (24, 16, 16, 16), "frozen": (20, 12, 12, 8)},
    "gemma3_text": {
        "half": (36, 12, 12, 8), "mixed": (38, 12, 12, 8), "full": (40, 16, 16, 16), "frozen": (23, 11, 6, 6),
    },
    "gpt2": {"half": (16, 0, 0, 10), "mixed": (20, 0, 0, 10), "full": (32, 0, 0, 20), "frozen": (16, 0, 0, 10)},
    "bert": {"half": (16, 0, 0, 4), "mixed": (24, 0, 0, 4), "full": (32, 0, 0, 8), "frozen": (16, 0, 0, 4)},
}  # fmt: skip
GELU_NEW = {
    "half": 6,
    "mixed": 6,
    "full": 12,
    "frozen": 6,
}  # of GPT-2's d: what its gelu keeps between its seven kernels


@dataclass(frozen=True)
class TrainingShape:
    """What the forecast needs to know of a training run. Lengths in tokens; ``micro_batch`` in sequences on one GPU."""

    micro_batch: int
    length: int
    weights: str = "float32"  # the dtype parameters are stored in
    autocast: bool = True  # bf16 computation
    lora_rank: int = 0
    lora_targets: tuple[str, ...] | str = "all-linear"
    lora_dropout: float = 0.0
    checkpoint_activations: bool = False
    language_head: bool = True
    logit_chunk: int = 256 << 20  # bytes of fp32 logits that exist at once (losses.CHUNK_BYTES)
    masked: bool = False  # padded batches hand SDPA a mask that is kept per layer
    shards: int = 1  # GPUs that weights, gradients and optimizer are split over (FSDP)


class MemoryRecord(TypedDict):
    """A memory forecast as a JSON document: bytes by part and in total, and numbers of parameters."""

    parts: dict[str, int]
    trainable: int
    parameters: int
    total: int


@dataclass(frozen=True)
class MemoryForecast:
    """Bytes on each GPU, by part; ``total`` is what the peak should be."""

    parts: dict[str, int]
    trainable: int
    parameters: int

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def as_dict(self) -> MemoryRecord:
        """The forecast as a JSON document."""
        return {"parts": self.parts, "trainable": self.trainable, "parameters": self.parameters, "total": self.total}

    def lines(self) -> list[str]:
        """The breakdown for people, biggest first."""
        shown = sorted(self.parts.items(), key=lambda part: -part[1])
        return [f"{name:<12} {size / GIB:7.2f} GiB" for name, size in shown if size] + [
            f"{'total':<12} {self.total / GIB:7.2f} GiB"
        ]


def forecast_memory(model: Architecture, shape: TrainingShape) -> MemoryForecast:
    """Peak GPU memory of training ``model`` of this ``shape``, by part, what CUDA itself takes included."""
    total = count_parameters(model, head=shape.language_head).total
    adapter = lora_parameters(model, shape.lora_rank, shape.lora_targets) if shape.lora_rank else 0
    trainable = adapter or total
    width = BYTES[shape.weights]
    trained_width = 4 if adapter else width  # peft keeps adapters in fp32 over a bf16 base
    tokens = shape.micro_batch * shape.length
    parts = {
        "weights": (total * width + adapter * 4) // shape.shards + _autocast_copies(model, shape, trainable),
        "gradients": trainable * trained_width // shape.shards,
        "optimizer": 2 * trainable * trained_width // shape.shards,  # AdamW's two moments
        "activations": _activations(model, shape, tokens),
        "logits": _logits(model, shape, tokens),
    }
    parts["allocator"] = int(FRAGMENTATION * sum(parts.values()))
    parts["cuda"] = CUDA_CONTEXT
    return MemoryForecast(parts, trainable, total + adapter)


def largest_micro_batch(model: Architecture, shape: TrainingShape, batch: int, capacity: int) -> int:
    """The largest divisor of ``batch`` whose forecast fits ``capacity`` bytes; 0 when not even one sequence does."""
    for size in sorted((n for n in range(1, batch + 1) if batch % n == 0), reverse=True):
        if forecast_memory(model, replace(shape, micro_batch=size)).total <= capacity:
            return size
    return 0


def _autocast_copies(model: Architecture, shape: TrainingShape, trainable: int) -> int:
    """Autocast keeps a bf16 copy of every fp32 weight that a matrix product used, until the backward pass is over."""
    if not shape.autocast or shape.weights != "float32" or shape.lora_rank:
        return 0
    return 2 * (trainable - model.positions * model.hidden) // shape.shards


def _precision(shape: TrainingShape) -> str:
    if shape.lora_rank:
        return "frozen"
    if shape.weights != "float32":
        return "half"
    return "mixed" if shape.autocast else "full"


def kept_per_layer(model: Architecture, shape: TrainingShape) -> int:
    """Bytes that one layer keeps per token for the backward pass."""
    a, b, c, d = KEPT[model.family][_precision(shape)]
    if model.fused_activation:
        d -= GELU_NEW[_precision(shape)]
    kept = a * model.hidden + b * model.query + c * model.key_value + d * model.inner
    kept += 4 * model.heads  # attention's log-sum-exp
    if shape.lora_rank and shape.lora_dropout:  # each adapter keeps its own dropped input and the mask
        kept += 4 * _adapted_inputs(model, shape)
    if shape.masked:
        kept += 2 * shape.length
    return kept


def _adapted_inputs(model: Architecture, shape: TrainingShape) -> int:
    return sum(inputs for inputs, _ in adapted_projections(model, shape.lora_targets))


def _activations(model: Architecture, shape: TrainingShape, tokens: int) -> int:
    """What all layers keep; with activation checkpointing each layer's input, and one layer while it is recomputed."""
    residual = model.hidden * (2 if _precision(shape) in ("half", "frozen") else 4)
    layer = kept_per_layer(model, shape)
    kept = layer + model.layers * residual if shape.checkpoint_activations else model.layers * layer
    backward = 2 * max(model.inner * 2, model.hidden * 4) * 2  # gradients of one layer while they flow
    return tokens * (kept + 2 * residual + backward)


def _logits(model: Architecture, shape: TrainingShape, tokens: int) -> int:
    """One chunk of logits in fp32 and twice in bf16; the hidden states' gradient; the head's own, in fp32, if trained."""
    if not shape.language_head:
        return 0
    chunk = min(shape.logit_chunk, tokens * model.vocabulary * 4)
    head = 0 if shape.lora_rank else 4 * model.vocabulary * model.hidden
    return 2 * chunk + 2 * tokens * model.hidden + head


@dataclass(frozen=True)
class DiskForecast:
    """Bytes that checkpoints will take. ``peak`` counts the one that is written before an old one is deleted."""

    runs: int
    checkpoints: int  # kept in the end, over all runs
    each: int
    peak: int

    @property
    def total(self) -> int:
        return self.checkpoints * self.each

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "total": self.total}


def checkpoint_bytes(model: Architecture, shape: TrainingShape, resumable: bool = True) -> int:
    """Size of a checkpoint: weights (the adapter's alone with LoRA), and AdamW's two moments if it is resumable."""
    total = count_parameters(model, head=shape.language_head).total
    if shape.lora_rank:
        saved, width = lora_parameters(model, shape.lora_rank, shape.lora_targets), 4
    else:
        saved, width = total, BYTES[shape.weights]
    return saved * width * (3 if resumable else 1)


def checkpoints_of_a_run(epochs: float, every_epochs: float, start: bool = True, final: bool = True) -> int:
    """How many checkpoints a run makes: every fraction of an epoch, its start and its end (1 epoch every 0.2: 7)."""
    return round(epochs / every_epochs) + start + final


def forecast_disk(each: int, made: list[int], keep: int | None = None) -> DiskForecast:
    """Disk for runs that make ``made[i]`` checkpoints of ``each`` bytes and keep the last ``keep`` (None: all)."""
    kept = [count if keep is None else min(count, keep) for count in made]
    writing = sum(count > held for count, held in zip(made, kept, strict=True))
    return DiskForecast(runs=len(made), checkpoints=sum(kept), each=each, peak=(sum(kept) + writing) * each)
