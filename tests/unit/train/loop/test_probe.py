"""What the probe of a micro-batch leaves behind (nothing), and what is alive while it tries."""

from __future__ import annotations

import os
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.fsdp
import torch.multiprocessing
from torch import Tensor, nn

from remote_payload.settings.training import Lora
from remote_payload.train.loop.probe import Probe
from remote_payload.train.loop.step import MicroBatch, Stepper
from remote_payload.train.model.lora import add_lora
from remote_payload.train.signals import Requests
from remote_payload.train.state import rng
from tests.support.models.tiny_models import tiny_model
from tests.support.models.toy_training import ToyTask, toy_run


class Watched(ToyTask):
    """Notes what is alive when each forward pass begins: bytes of moments, bytes of gradients; may fail in one of them."""

    stepper: Stepper
    fails_in: int | None = None

    def __init__(self, run: Any) -> None:
        super().__init__(run)
        self.seen: list[tuple[int, int]] = []
        self.moments: set[int] = set()

    def loss(self, model: nn.Module, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        state = self.stepper.optimizer.state
        moments = [values[key] for values in state.values() for key in ("exp_avg", "exp_avg_sq")]
        gradients = [p.grad for p in self.stepper.parameters if p.grad is not None]
        self.seen.append((size(moments), size(gradients)))
        self.moments |= {moment.data_ptr() for moment in moments}
        total, count = super().loss(model, micro)
        if len(self.seen) - 1 == self.fails_in:
            raise torch.OutOfMemoryError("CUDA out of memory (injected)")
        return total * float("nan"), count  # the worst that a batch can give


def size(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def watched(folder: Path, lora: bool = False, dtype: torch.dtype = torch.float32) -> Watched:
    run = toy_run(folder, {"dropout": 0.5})
    model: nn.Module = tiny_model("llama").to(dtype)
    task = Watched(run)
    task.stepper = Stepper(run, add_lora(model, Lora(rank=4, dropout=0.1), "CAUSAL_LM") if lora else model, task)
    return task


@pytest.mark.parametrize("seed", range(6))
def test_attempts_leave_everything_bit_for_bit_as_it_was(tmp_path: Path, seed: int) -> None:
    choose = random.Random(seed)
    task = watched(tmp_path, lora=choose.random() < 0.5, dtype=choose.choice([torch.float32, torch.bfloat16]))
    stepper = task.stepper
    torch.manual_seed(seed)
    before = {name: tensor.clone() for name, tensor in stepper.model.state_dict().items()}
    generators = rng.capture()
    task.fails_in = choose.choice([None, 0, 3, 5])
    with Probe(stepper, share=8) as probe:
        for rows in (1, 2, 4, 8):
            try:
                probe.attempt(rows)
            except torch.OutOfMemoryError:
                break
    after = stepper.model.state_dict()
    assert all(torch.equal(tensor.view(torch.uint8), before[name].view(torch.uint8)) for name, tensor in after.items())
    assert not stepper.optimizer.state and all(p.grad is None for p in stepper.model.parameters())
    assert all(torch.equal(state.nan_to_num(), generators[name].nan_to_num()) for name, state in rng.capture().items())


@pytest.mark.parametrize("lora", [False, True])
def test_the_second_forward_pass_runs_beside_both_moments_and_the_gradients_of_the_first(
    tmp_path: Path, lora: bool
) -> None:
    task = watched(tmp_path, lora)
    trained = size([parameter.data for parameter in task.stepper.parameters])
    with Probe(task.stepper, share=8) as probe:
        for rows in (1, 2, 4, 8):
            probe.attempt(rows)
    twice, once = [(2 * trained, 0), (2 * trained, trained)], [(2 * trained, 0)]
    assert task.seen == [*twice * 3, *once], "a micro-batch that is the whole batch of this rank comes alone"
    assert len(task.moments) == 2 * len(task.stepper.parameters), "the state was made anew for a size"


def sharded_steps(run: Any, breaks_off: bool) -> list[tuple[float, float]]:
    """Loss and gradient norm of two steps of a sharded model, after a probe whose backward pass ran out of memory half-way."""
    model = tiny_model("llama")
    run.world.shard(model, model.model.layers)
    task = ToyTask(run)
    stepper = Stepper(run, model, task)

    def fail(gradient: Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory (injected)")

    with Probe(stepper, share=4) as probe:
        probe.attempt(1)
        if breaks_off:
            layer = model.model.layers[0]
            handle = layer.register_forward_hook(lambda module, inputs, output: output.register_hook(fail) and None)
            with pytest.raises(torch.OutOfMemoryError):
                probe.attempt(2)
            handle.remove()
    found = []
    for work in list(task.steps(0, 0))[:2]:
        facts = stepper.step(work, 2, 1e-3, Requests())
        assert facts is not None
        found.append((facts.loss, facts.grad_norm))
    return found


def sharded_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank))
    whole = sharded_steps(toy_run(Path(folder) / "whole"), False)
    assert sharded_steps(toy_run(Path(folder) / "broken_off"), True) == whole
    dist.destroy_process_group()


@pytest.mark.stand_in
def test_a_sharded_model_trains_as_ever_after_an_attempt_that_all_ranks_gave_up(tmp_path: Path) -> None:
    if not hasattr(torch.distributed.fsdp.FSDPModule, "reset_iter_state"):
        pytest.skip("this torch cannot give up a pass of FSDP2")
    torch.multiprocessing.spawn(sharded_rank, args=(str(tmp_path),), nprocs=2)
