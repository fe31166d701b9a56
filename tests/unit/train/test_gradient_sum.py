"""Gradients summed over real processes (gloo), beside a plain sum of what each of them computes alone."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn

from remote_payload.train import distributed
from remote_payload.train.distributed import GradientSum, World

RANKS, CASES = 2, 60
BUCKET = 400  # bytes, so that a handful of parameters makes several buckets


class Case:
    """Parameters of random shapes and dtypes, and what each rank does with them: some in each micro-batch, some in none."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        torch.manual_seed(seed)
        dtypes = rng.choice([[torch.float32], [torch.bfloat16], [torch.float32, torch.bfloat16]])
        shapes = [tuple(rng.randint(1, 9) for _ in range(rng.randint(0, 3))) for _ in range(rng.randint(1, 12))]
        self.parameters = [nn.Parameter(torch.randn(shape, dtype=rng.choice(dtypes))) for shape in shapes]
        if rng.random() < 0.3:  # a matrix that is not contiguous, as tied and transposed weights are
            self.parameters.append(nn.Parameter(torch.randn(7, 30).t()))
        self.used = [
            [rng.sample(range(len(self.parameters)), rng.randint(0, len(self.parameters))) for _ in range(rng.randint(1, 4))]
            for _ in range(RANKS)
        ]  # fmt: skip
        self.factors = [torch.randn_like(parameter) for parameter in self.parameters]
        self.fails_at = (rng.randrange(RANKS), rng.randrange(4)) if rng.random() < 0.25 else None

    def backward(self, rank: int, batch: int) -> None:
        used = self.used[rank][batch]
        losses = [(self.parameters[i] * self.factors[i]).float().pow(2).sum() * (rank + 2 * batch + 1) for i in used]
        if losses:
            torch.stack(losses).sum().backward()

    def clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def plain_sum(self) -> list[Tensor]:
        """Zeros, to which every rank's own gradient is added."""
        sums = [torch.zeros_like(parameter) for parameter in self.parameters]
        for rank in range(RANKS):
            self.clear()
            for batch in range(len(self.used[rank])):
                self.backward(rank, batch)
            for total, parameter in zip(sums, self.parameters, strict=True):
                if parameter.grad is not None:
                    total += parameter.grad
        self.clear()
        return sums


def step(case: Case, gradients: GradientSum, rank: int, fails_at: int | None) -> None:
    """A step as ``Stepper`` makes it; at micro-batch ``fails_at`` this rank runs out of memory."""
    gradients.begin()
    try:
        for batch in range(len(case.used[rank])):
            if batch == fails_at:
                raise torch.OutOfMemoryError("CUDA out of memory (injected)")
            if batch == len(case.used[rank]) - 1:
                gradients.arm()
            case.backward(rank, batch)
    except torch.OutOfMemoryError:
        pass
    gradients.finish()


def work(rank: int, folder: str) -> None:
    """One rank: every case beside the plain sum. An assertion that fails here fails the test, with its traceback."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS, timeout=timedelta(seconds=60)
    )
    distributed.BUCKET_BYTES = BUCKET
    world, sent, reduce = World(rank, RANKS, rank, torch.device("cpu")), [], dist.all_reduce

    def noted(tensor: Tensor, *arguments: Any, **options: Any) -> Any:
        sent.append(tensor.untyped_storage().data_ptr())
        return reduce(tensor, *arguments, **options)

    dist.all_reduce = noted
    for seed in range(CASES):
        case = Case(seed)
        expected = case.plain_sum()
        gradients = GradientSum(world, case.parameters)
        if case.fails_at is not None:  # a step that is given up leaves nothing behind
            step(case, gradients, rank, case.fails_at[1] if rank == case.fails_at[0] else None)
            case.clear()
        sent.clear()
        step(case, gradients, rank, None)
        for number, (parameter, total) in enumerate(zip(case.parameters, expected, strict=True)):
            assert parameter.grad is not None and torch.equal(parameter.grad, total), (seed, number)
            assert parameter.grad.untyped_storage().data_ptr() in sent, f"{seed}, {number}: a copy was sent"
        assert len(sent) == len(set(sent)) == len(gradients.buckets)
        assert not any(flat is not None for flat in gradients.flats), "buckets outlive their gradients"
    dist.destroy_process_group()


@pytest.mark.stand_in
def test_random_gradients_are_those_of_a_plain_sum_and_are_reduced_where_they_lie(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, args=(str(tmp_path),), nprocs=RANKS)
