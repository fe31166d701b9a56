"""Runs a recipe as the box would, whole, on the GPU under test; then what it measured, beside what was forecast."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

# All of them before anything is replaced: what a module imports later it would keep.
from remote_payload.recipes import classify, finetune, preference, pretrain, sft  # noqa: F401
from remote_payload.train.data.packing import IGNORED
from remote_payload.train.loop.flops import attention_flops, flops_per_token
from remote_payload.train.loop.loop import Loop
from remote_payload.train.loop.loss_check import check_losses
from remote_payload.train.loop.step import MicroBatch
from remote_payload.train.results.causal_smoke import write_causal_smoke
from tests.gpu.devices import NullDevice, RealDevice
from tests.gpu.observed import Observed, observing
from tests.gpu.replaced import method_replaced, replaced
from tests.gpu.table import Row
from tests.support.models.recipe_process import RecipeRun, run_recipe_here


@dataclass
class Flops:
    """FLOPs of one micro-batch by the payload's formula over torch's count: of matrices, and of attention."""

    matrices: float
    attention: float


@dataclass
class Done:
    """A run that has ended."""

    run: RecipeRun
    seen: Observed
    flops: Flops | None

    @property
    def record(self) -> dict[str, Any]:
        return json.loads((self.run.outputs / "training_metadata.json").read_text(encoding="utf-8"))


def run_job(
    device: RealDevice | NullDevice, recipe: str, settings: dict[str, Any], folder: Path, *, resume: str | None = None,
    count_flops: bool = False, steps_only: bool = False,
) -> Done:  # fmt: skip
    """The recipe's ``main``, whole or with ``steps_only``, in ``folder``/run; what it raises comes out."""
    counted: list[Flops] = []
    with ExitStack() as stack:
        stack.enter_context(device.running())
        seen = stack.enter_context(observing(device))
        stack.enter_context(counting(counted, count_flops))
        if steps_only:
            stack.enter_context(without_proofs())
        job = {"name": "gpu-test", "recipe": recipe, "settings": settings}
        run = run_recipe_here(job, folder, folder / "run", resume=resume)
    gc.collect()
    return Done(run, seen, counted[0] if counted else None)


@contextmanager
def without_proofs() -> Iterator[None]:
    """Inside, a language model's loss is not checked before the first step, and no reference is written for the smoke test: on the
    null GPU both take longer than the steps. Each recipe has a test that runs it whole."""
    with replaced(check_losses, lambda *arguments: None), replaced(write_causal_smoke, lambda *arguments: None):
        yield


@contextmanager
def counting(found: list[Flops], wanted: bool) -> Iterator[None]:
    """Before the first step, counts the FLOPs of one micro-batch of full length, forward and backward."""
    take_steps = Loop.take_steps

    def counted_first(loop: Loop) -> Any:
        if wanted and not found:
            found.append(count(loop))
        return take_steps(loop)

    with method_replaced(Loop, "take_steps", counted_first):
        yield


def count(loop: Loop) -> Flops:
    """Ours beside torch's; the gradients are thrown away."""
    batch = loop.task.heaviest(1)
    lengths, counted = lengths_of(batch), counted_in(batch)
    loop.model.train()
    with FlopCounterMode(display=False) as counter:
        loss, *_ = loop.task.loss(loop.model, batch.to(loop.world.device))
        loss.backward()
    loop.stepper.optimizer.zero_grad(set_to_none=True)
    theirs = counter.get_flop_counts()["Global"]
    their_attention = sum(
        flops for operator, flops in theirs.items() if "attention" in str(operator) or "attn" in str(operator)
    )
    language = hasattr(loop.model, "network")
    network, head = (loop.model.network, loop.model.head) if language else (loop.model.encoder, loop.model.head.weight)
    tokens = sum(lengths)
    attention = attention_flops(network, lengths) * tokens
    matrices = flops_per_token(network, head, lengths, counted) * tokens - attention
    share = attention / their_attention if their_attention else float("nan")
    return Flops(matrices / (sum(theirs.values()) - their_attention), share)


def lengths_of(batch: MicroBatch) -> list[int]:
    """How long each text of a micro-batch is."""
    tensors = batch.tensors
    if "cu_seq_lens_q" in tensors:
        return tensors["cu_seq_lens_q"].diff().tolist()
    ids = tensors["input_ids"] if "input_ids" in tensors else tensors["ids"]
    return [ids.shape[1]] * ids.shape[0]


def counted_in(batch: MicroBatch) -> int:
    """How many outputs the head computes: targets that count, or one a text."""
    targets = batch.tensors.get("targets")
    return len(batch.tensors["labels"]) if targets is None else int((targets != IGNORED).sum())


def row_of(done: Done, recipe: str, model: str, shape: str) -> Row:
    """Its row: the last step's figures, since the first makes the optimizer's state."""
    step, forecast = done.seen.steps[-1], done.record["memory"]["predicted"]
    row = Row(recipe, model, shape, step.peak, step=step.total, micro_batch=step.between)
    if forecast:
        row.forecast = forecast["total"]
        row.room = step.peak + forecast["parts"]["allocator"] + forecast["parts"]["cuda"]
    if done.seen.evaluations:
        row.evaluation = done.seen.evaluations[-1].each
    if done.seen.decoded:
        row.token = done.seen.decoded[-1].each
    if done.flops:
        row.flops, row.attention = done.flops.matrices, done.flops.attention
    return row
