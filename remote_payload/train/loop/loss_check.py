"""Before the first step: is what training minimises the loss of this model? ``model/packed_losses.py`` measures it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Any

import torch
from torch import nn

from remote_payload.train.errors import TrainingError
from remote_payload.train.loop.step import Task
from remote_payload.train.model.causal import CausalLoss, base_of
from remote_payload.train.model.packed_losses import Deviations, deviations
from remote_payload.train.model.precision import resolve_precision
from remote_payload.train.run import Run
from remote_payload.train.state import rng

LENGTHS = (24, 40)  # of the two documents, in tokens


def check_losses(run: Run, model: nn.Module, task: Task) -> None:
    """Raises TrainingError when a language model's loss in training differs from that of its own logits by more than rounding.

    Two short documents are made of the first tokens that the task trains on. Every rank must call it, and all decide the
    same. Weights, generators and mode stay as they are. A model that is no CausalLoss has a loss of its own: no check.
    """
    if not isinstance(model, CausalLoss):
        return
    batches = task.micro_batches(next(iter(task.steps(0, 0))), 1)
    documents, packed = run.world.broadcast(two_documents(batches[0].tensors) if batches else ([], False))
    if not documents:
        return
    if run.world.sharded:
        register_forward(model)
    try:
        with rng.preserved(), evaluating(model):
            compute = resolve_precision(run.settings.precision, run.world.device)
            found = deviations(model, *documents, packed=packed, compute=compute)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a layer says to bounds that it does not know
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        raise TrainingError(
            f"{_family(model)} cannot compute the loss of two short documents the way that training does: "
            f"{type(error).__name__}: {reason}. No step was taken. Choose another model"
        ) from error
    problem = explain(model, Deviations(*run.world.max(*found)))
    if problem:
        raise TrainingError(f"{problem} No step was taken: training would minimise a wrong loss. Choose another model")


def register_forward(model: CausalLoss) -> None:
    """Lets ``own_logits`` gather the weights of a sharded model, as its forward pass does."""
    from torch.distributed.fsdp import register_fsdp_forward_method

    register_fsdp_forward_method(model, "own_logits")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, and afterwards each module's own mode again."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def two_documents(tensors: dict[str, Any]) -> tuple[list[list[int]], bool]:
    """Two documents of the first tokens of a micro-batch, and whether its rows are packed; none for a batch of another kind.

    They are no longer than a document of it, so that the model has a position for each token.
    """
    ids = tensors.get("input_ids")
    if ids is None or ids.shape[-1] < 2:
        return [], False
    bounds = tensors.get("cu_seq_lens_q")
    longest = ids.shape[-1] if bounds is None else tensors.get("max_length_q") or int(bounds.diff().max())
    if longest < 2:
        return [], False
    lengths = [min(length, longest) for length in LENGTHS]
    if bounds is None:
        lengths = [min(lengths)] * 2
    words = islice(cycle(ids.flatten()[: sum(LENGTHS)].tolist()), sum(lengths))
    return [list(islice(words, length)) for length in lengths], bounds is not None


def explain(model: CausalLoss, found: Deviations) -> str | None:
    """What is wrong, in words; None when rounding explains all deviations (or one is NaN: the first step says so)."""
    family = _family(model)
    if found.leak > found.leak_explained:
        return (
            f"{family} let documents that share a packed row change each other: with other words in the document before it, "
            f"the log-probabilities of a document's tokens change by {found.leak:.2g} (rounding explains "
            f"{found.leak_explained:.1g}). A layer carries something over the bounds of a document: a convolution, a recurrent "
            "or state-space layer, or an attention that does not read the bounds."
        )
    if found.head > found.explained:
        return (
            f"{family} do something to their logits that the loss of training does not (a soft cap or a scale after the output "
            f"head): by their own logits the log-probabilities of a document's tokens differ by {found.head:.2g} from those in "
            f"training (rounding explains {found.explained:.1g})."
        )
    if found.packed > found.explained:
        return (
            f"{family} give a document in training another loss than alone with their own attention, though nothing leaks into "
            f"it: the log-probabilities of its tokens differ by {found.packed:.2g} (rounding explains {found.explained:.1g}). "
            "Positions do not begin anew with each document, or attention has a part that training's has not (sinks, a soft cap)."
        )
    return None


def _family(model: CausalLoss) -> str:
    return f"settings.model: {base_of(model.network).config.model_type} models"
