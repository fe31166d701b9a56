"""The loss of tokens as a task takes it from its recipe, and an evaluation as sums: the scores of no example are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from remote_payload.train.distributed import World
from remote_payload.train.loop.step import MicroBatch
from remote_payload.train.model.causal import TokenLoss

LossFunction = Callable[
    [nn.Module, MicroBatch], TokenLoss
]  # what a recipe's ``loss`` is; the micro-batch is on the device


def loss_of_the_model(model: nn.Module, batch: MicroBatch) -> TokenLoss:
    """What the model's own forward pass gives: a ``CausalLoss`` gives the loss of its targets."""
    loss: TokenLoss = model(**batch.tensors)
    return loss


@torch.no_grad()
def add_up(parts: Iterable[Tensor], width: int, device: torch.device) -> Tensor:
    """The sum of ``parts``, each ``[width]``, in fp64 on ``device``; zeros where there are none. Of this rank alone."""
    sums = torch.zeros(width, dtype=torch.float64, device=device)
    for part in parts:
        sums += part.double()
    return sums


def token_sums(loss: LossFunction, model: nn.Module, batches: Iterable[MicroBatch], device: torch.device) -> Tensor:
    """``[3]``, of this rank: summed loss, counted tokens and correct predictions of the micro-batches."""
    losses = (loss(model, batch.to(device)) for batch in batches)
    return add_up((torch.stack([part.double() for part in each]) for each in losses), 3, device)


def token_metrics(world: World, sums: Tensor) -> dict[str, float]:
    """``loss`` (nats a token), ``perplexity`` and ``token_accuracy`` from every rank's ``token_sums``; every rank must call it."""
    loss, tokens, correct = world.sum_on_device((), sums).tolist()
    mean = loss / max(tokens, 1.0)
    return {"loss": mean, "perplexity": math.exp(min(mean, 700.0)), "token_accuracy": correct / max(tokens, 1.0)}
