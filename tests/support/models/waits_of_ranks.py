"""Steps on several ranks, whole or sharded models, with a count of where each rank waits for its device.

    torchrun … -m tests.support.models.waits_of_ranks FOLDER whole|sharded

writes ``waits-<rank>.json``: for each step how many micro-batches went to the device, and the places of the waits.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from remote_payload.train.data.packing import Document
from remote_payload.train.loop.step import Stepper
from remote_payload.train.model.attention import ATTENTION
from remote_payload.train.model.causal import CausalLoss
from remote_payload.train.signals import Requests
from remote_payload.train.tasks.rows import PackedRows, RowTask
from tests.support.models.tiny_models import tiny_model
from tests.support.models.toy_training import toy_run
from tests.support.waits import counted_waits


def main() -> None:
    folder, sharded = Path(sys.argv[1]), sys.argv[2] == "sharded"
    torch.set_num_threads(1)
    draw = random.Random(2)
    run = toy_run(folder, {"batch": {"size": 9}})
    network = tiny_model("olmo2")
    network.set_attn_implementation(ATTENTION)
    model = CausalLoss(network)
    if sharded:
        run.world.shard(model, network.model.layers)
    documents = [Document(draw.choices(range(4, 380), k=30), [True] * 30) for _ in range(27)]
    task = RowTask(run.settings, run.world, PackedRows(documents, 32), torch.float32, lambda model, rows: {})
    stepper, steps = Stepper(run, model, task), []
    for work in task.steps(0, 0):
        with counted_waits(list(model.parameters()), list(model.buffers())) as waits:
            facts = stepper.step(work, draw.choice([1, 2, 4]), 1e-3, Requests())
        assert facts is not None and facts.finite and facts.tokens == 30 * len(work)
        steps.append((waits.batches, waits.places))
    (folder / f"waits-{run.world.rank}.json").write_text(json.dumps(steps))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
