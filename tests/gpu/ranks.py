"""Eight ranks in one process: torch's ``fake`` process group, whose collectives return at once and move nothing.

This process is rank 0. What the ranks tell each other in plain numbers is answered as if all of them were alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from remote_payload.train.distributed import World
from tests.gpu.replaced import method_replaced

RANKS = 8


@contextmanager
def eight_ranks() -> Iterator[None]:
    """Inside, recipes see eight ranks, of which this process is the first."""
    before = dict(os.environ)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=RANKS)
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE=str(RANKS))
    reduce = World._reduce

    def alike(world: World, values: Any, operation: Any) -> list[float]:
        values = [float(value) for value in values]
        reduce(world, values, operation)  # the collective itself, with its copies and waits
        return [value * RANKS for value in values] if operation == dist.ReduceOp.SUM else values

    with ExitStack() as stack:
        stack.enter_context(method_replaced(World, "_reduce", alike))
        stack.enter_context(method_replaced(World, "broadcast", lambda world, value: value))
        stack.enter_context(method_replaced(World, "gather", lambda world, value: [value] * RANKS))
        try:
            yield
        finally:
            dist.destroy_process_group()
            os.environ.clear()
            os.environ.update(before)
            torch.cuda.set_device(0)
