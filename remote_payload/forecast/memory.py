"""The GPU memory that a training run will need, by part, from config.json and settings, before money is spent.

The laptop's ``gpurun check`` and the box call the same functions; the box records the measured peak beside the prediction.

Weights, gradients and optimizer state are there all the time (the peak is in the second micro-batch of the second step at the
earliest). What else is there changes, and the forecast is the largest of three moments: when the loss has its logits and all layers
their activations; when the backward pass begins; when it ends at the embedding.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TypedDict

from remote_payload.forecast.activations import backward_of_layer, kept_per_layer, outside_layers, residual_per_layer
from remote_payload.forecast.architecture import Architecture, count_parameters, lora_parameters
from remote_payload.forecast.shape import BYTES as BYTES
from remote_payload.forecast.shape import GIB as GIB
from remote_payload.forecast.shape import TrainingShape as TrainingShape

CUDA_CONTEXT = int(0.8 * GIB)  # driver context, cuBLAS workspaces, kernels of torch 2.x on Ampere to Hopper
FRAGMENTATION = 0.06  # of what the allocator hands out


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
    worst = max(_moments(model, shape), key=lambda moment: moment.total)
    used = {
        "weights": (total * width + adapter * 4) // shape.shards + worst.weights,
        "gradients": trainable * trained_width // shape.shards + worst.gradients,
        "optimizer": 2 * trainable * trained_width // shape.shards,  # AdamW's two moments
        "activations": worst.activations,
        "logits": worst.logits,
    }
    parts = MemoryParts(**used, allocator=int(FRAGMENTATION * sum(used.values())), cuda=CUDA_CONTEXT)
    return MemoryForecast(parts, trainable, total + adapter)


def largest_micro_batch(model: Architecture, shape: TrainingShape, batch: int, capacity: int) -> int:
    """The largest divisor of ``batch`` whose forecast fits in ``capacity`` bytes; 0 when not even one sequence fits."""
    for size in sorted((n for n in range(1, batch + 1) if batch % n == 0), reverse=True):
        if forecast_memory(model, replace(shape, micro_batch=size)).total <= capacity:
            return size
    return 0


@dataclass(frozen=True)
class _Moment:
    """Bytes at one moment of a micro-batch, beside weights, gradients and optimizer state."""

    weights: int = 0  # copies of weights in another dtype
    gradients: int = 0  # not yet added to those of the micro-batch before
    activations: int = 0
    logits: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.activations + self.logits


def _moments(model: Architecture, shape: TrainingShape) -> list[_Moment]:
    moments = [_backward_begins(model, shape)]
    if shape.language_head:
        moments.append(_loss(model, shape))
    if not shape.lora_rank:
        moments.append(_backward_ends(model, shape))
    return moments


def _loss(model: Architecture, shape: TrainingShape) -> _Moment:
    """Every layer's activations, and a chunk of logits with its gradient; if the head is trained its gradient in fp32 too."""
    kept = model.layers * _kept_of_layer(model, shape) + outside_layers(model, shape)
    fp32 = shape.precision in ("full", "frozen full")
    chunk = min(shape.logit_chunk, shape.tokens * model.vocabulary * 4)
    logits = chunk if fp32 else chunk + chunk // 2  # their gradient is of the dtype of matrix products
    if shape.pairs:
        logits = 3 * chunk  # log-probabilities of all words, and two gradients
    matrix = model.vocabulary * model.hidden
    if not shape.lora_rank:
        logits += matrix * (4 + (4 if fp32 else 2))  # the head's gradient, and what a chunk adds to it
    copies = _autocast_copies(model, shape) + (2 * matrix if shape.precision == "mixed" and model.tied else 0)
    gathered = _gathered(model, shape, layers=1)  # the last layer's are left for the backward pass
    return _Moment(weights=copies + gathered, activations=shape.tokens * kept, logits=logits)


def _backward_begins(model: Architecture, shape: TrainingShape) -> _Moment:
    """Every layer's activations, and the gradients that flow through the last layer, which is recomputed if none were kept."""
    layers, copies = model.layers * _kept_of_layer(model, shape), _autocast_copies(model, shape)
    if shape.checkpoint_activations:
        layers, copies = layers + kept_per_layer(model, shape), copies // model.layers
    kept = layers + residual_per_layer(model, shape) + backward_of_layer(model, shape)
    # With shards the next layer is gathered meanwhile, and a layer's gradients are copied before they are sent.
    weights, gradients = copies + _gathered(model, shape, layers=2), _head_gradient(model, shape)
    if shape.shards > 1:
        gradients += 2 * _layer_bytes(model, shape)
    return _Moment(weights=weights, gradients=gradients, activations=shape.tokens * kept)


def _backward_ends(model: Architecture, shape: TrainingShape) -> _Moment:
    """The gradient of the embedding, as large as the embedding itself; if it is the head too, added to the head's.

    With shards: the gradients of all that is in no layer, and the copy of them that is sent.
    """
    embedding = model.vocabulary * model.hidden * BYTES[shape.weights]
    gradients = embedding + (embedding + _head_gradient(model, shape) if model.tied and shape.language_head else 0)
    gathered = _gathered(model, shape, layers=0)
    if shape.shards > 1:
        gradients = max(gradients, 2 * gathered)
    activations = shape.tokens * 2 * residual_per_layer(model, shape)
    return _Moment(weights=gathered, gradients=gradients, activations=activations)


def _gathered(model: Architecture, shape: TrainingShape, layers: int) -> int:
    """Whole weights on a GPU of a sharded run: those in no layer, from the first use to the last, and so many layers'."""
    if shape.shards == 1:
        return 0
    parameters = count_parameters(model, head=shape.language_head)
    return (parameters.total - parameters.layers) * BYTES[shape.weights] + layers * _layer_bytes(model, shape)


def _layer_bytes(model: Architecture, shape: TrainingShape) -> int:
    return count_parameters(model).layers // model.layers * BYTES[shape.weights]


def _head_gradient(model: Architecture, shape: TrainingShape) -> int:
    """The head's gradient, where it waits for the backward pass to end: for the embedding's if tied, to be sent if sharded."""
    if shape.lora_rank or not shape.language_head or not (model.tied or shape.shards > 1):
        return 0
    return model.vocabulary * model.hidden * BYTES[shape.weights]


def _kept_of_layer(model: Architecture, shape: TrainingShape) -> int:
    return residual_per_layer(model, shape) if shape.checkpoint_activations else kept_per_layer(model, shape)


def _autocast_copies(model: Architecture, shape: TrainingShape) -> int:
    """Autocast keeps a bf16 copy of every fp32 weight that a matrix product used, until the backward pass is over."""
    if shape.precision != "mixed":
        return 0
    parameters = count_parameters(model, head=shape.language_head)
    return 2 * (parameters.layers + parameters.head)
