"""The GPU memory that a training run will need, by part, from config.json and settings, before money is spent.

The laptop's ``gpurun check`` and the box call the same functions; the box records the measured peak beside the prediction.

Activations are counted as the tensors that autograd keeps for the backward pass, per token and layer, as multiples of four
widths (as Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", section 4.1, do for
GPT). The multiples are those of transformers' own modules with SDPA attention; the tests count what autograd keeps.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Literal, NamedTuple, TypedDict

from remote_payload.forecast.architecture import Architecture, adapted_projections, count_parameters, lora_parameters

GIB = 1024**3
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
CUDA_CONTEXT = int(0.8 * GIB)  # driver context, cuBLAS workspaces, kernels of torch 2.x on Ampere to Hopper
FRAGMENTATION = 0.06  # of what the allocator hands out

# How a run computes: "half" with bf16 weights, "mixed" with fp32 weights under bf16 autocast, "full" with fp32 throughout,
# "frozen" with a bf16 base under LoRA.
Precision = Literal["half", "mixed", "full", "frozen"]


class Kept(NamedTuple):
    """Bytes that a layer keeps per token for the backward pass: these multiples of the model's widths, added up."""

    hidden: int
    query: int
    key_value: int
    inner: int


KEPT: dict[str, dict[Precision, Kept]] = {
    "llama": {
        "half": Kept(16, 4, 4, 8), "mixed": Kept(26, 4, 4, 8), "full": Kept(24, 8, 8, 16), "frozen": Kept(18, 6, 4, 8),
    },
    "qwen2": {
        "half": Kept(16, 4, 4, 8), "mixed": Kept(26, 4, 4, 8), "full": Kept(24, 8, 8, 16), "frozen": Kept(18, 6, 4, 8),
    },
    "olmo2": {
        "half": Kept(20, 12, 12, 8), "mixed": Kept(26, 12, 12, 8), "full": Kept(24, 16, 16, 16),
        "frozen": Kept(20, 12, 12, 8),
    },
    "gemma3_text": {
        "half": Kept(36, 12, 12, 8), "mixed": Kept(38, 12, 12, 8), "full": Kept(40, 16, 16, 16),
        "frozen": Kept(23, 11, 6, 6),
    },
    "gpt2": {
        "half": Kept(16, 0, 0, 10), "mixed": Kept(20, 0, 0, 10), "full": Kept(32, 0, 0, 20), "frozen": Kept(16, 0, 0, 10),
    },
    "bert": {
        "half": Kept(16, 0, 0, 4), "mixed": Kept(24, 0, 0, 4), "full": Kept(32, 0, 0, 8), "frozen": Kept(16, 0, 0, 4),
    },
}  # fmt: skip
# Of GPT-2's multiple of inner: what its gelu_new keeps between its seven kernels. The same function in one kernel keeps none of it.
GELU_NEW: dict[Precision, int] = {"half": 6, "mixed": 6, "full": 12, "frozen": 6}


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


@dataclass(frozen=True)
class MemoryParts:
    """Bytes on each GPU, by what they are for."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    allocator: int  # what fragmentation makes it hold
    cuda: int

    @property
    def total(self) -> int:
        return sum(getattr(self, part.name) for part in fields(self))


class MemoryRecord(TypedDict):
    """A memory forecast as a JSON document: bytes by part and in total, and numbers of parameters."""

    parts: dict[str, int]
    trainable: int
    parameters: int
    total: int


@dataclass(frozen=True)
class MemoryForecast:
    """Bytes on each GPU, by part, and numbers of parameters; ``total`` is what the peak should be."""

    parts: MemoryParts
    trainable: int
    parameters: int

    @property
    def total(self) -> int:
        return self.parts.total

    def as_dict(self) -> MemoryRecord:
        """The forecast as a JSON document."""
        parts = asdict(self.parts)
        return {"parts": parts, "trainable": self.trainable, "parameters": self.parameters, "total": self.total}

    def by_size(self) -> list[tuple[str, int]]:
        """Name and bytes of each part, the largest first."""
        return sorted(asdict(self.parts).items(), key=lambda part: -part[1])


def forecast_memory(model: Architecture, shape: TrainingShape) -> MemoryForecast:
    """Peak GPU memory of training ``model`` in this ``shape``, by part, including what CUDA itself takes.

    Raises KeyError for weights of a dtype that is not in ``BYTES``.
    """
    total = count_parameters(model, head=shape.language_head).total
    adapter = lora_parameters(model, shape.lora_rank, shape.lora_targets) if shape.lora_rank else 0
    trainable = adapter or total
    width = BYTES[shape.weights]
    trained_width = 4 if adapter else width  # peft keeps adapters in fp32 over a bf16 base
    tokens = shape.micro_batch * shape.length
    used = {
        "weights": (total * width + adapter * 4) // shape.shards + _autocast_copies(model, shape, trainable),
        "gradients": trainable * trained_width // shape.shards,
        "optimizer": 2 * trainable * trained_width // shape.shards,  # AdamW's two moments
        "activations": _activations(model, shape, tokens),
        "logits": _logits(model, shape, tokens),
    }
    parts = MemoryParts(**used, allocator=int(FRAGMENTATION * sum(used.values())), cuda=CUDA_CONTEXT)
    return MemoryForecast(parts, trainable, total + adapter)


def largest_micro_batch(model: Architecture, shape: TrainingShape, batch: int, capacity: int) -> int:
    """The largest divisor of ``batch`` whose forecast fits in ``capacity`` bytes; 0 when not even one sequence fits."""
    for size in sorted((n for n in range(1, batch + 1) if batch % n == 0), reverse=True):
        if forecast_memory(model, replace(shape, micro_batch=size)).total <= capacity:
            return size
    return 0


def _autocast_copies(model: Architecture, shape: TrainingShape, trainable: int) -> int:
    """Autocast keeps a bf16 copy of every fp32 weight that a matrix product used, until the backward pass is over."""
    if not shape.autocast or shape.weights != "float32" or shape.lora_rank:
        return 0
    return 2 * (trainable - model.positions * model.hidden) // shape.shards


def _precision(shape: TrainingShape) -> Precision:
    if shape.lora_rank:
        return "frozen"
    if shape.weights != "float32":
        return "half"
    return "mixed" if shape.autocast else "full"


def kept_per_layer(model: Architecture, shape: TrainingShape) -> int:
    """Bytes that one layer keeps per token for the backward pass (``KEPT``, and what adapters and masks add)."""
    per = KEPT[model.family][_precision(shape)]
    inner = per.inner - (GELU_NEW[_precision(shape)] if model.fused_activation else 0)
    kept = per.hidden * model.hidden + per.query * model.query + per.key_value * model.key_value + inner * model.inner
    kept += 4 * model.heads  # attention's log-sum-exp
    if shape.lora_rank and shape.lora_dropout:  # each adapter keeps its own dropped input and the mask
        kept += 4 * _adapted_inputs(model, shape)
    if shape.masked:
        kept += 2 * shape.length
    return kept


def _adapted_inputs(model: Architecture, shape: TrainingShape) -> int:
    return sum(each.inputs for each in adapted_projections(model, shape.lora_targets))


def _activations(model: Architecture, shape: TrainingShape, tokens: int) -> int:
    """Bytes that all layers keep; with activation checkpointing each layer's input, and one layer while it is recomputed."""
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
