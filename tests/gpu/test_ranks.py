"""Eight ranks: gradients summed over copies of the model, and a model sharded with FSDP2. Of rank 0, with collectives that move nothing."""

from __future__ import annotations

import pytest
import torch
from packaging.version import Version

from tests.gpu import jobs
from tests.gpu.bounds import check
from tests.gpu.ranks import RANKS, eight_ranks
from tests.gpu.runs import row_of, run_job

pytestmark = [
    pytest.mark.null_only,  # one process alone: on real GPUs there are as many as ranks
    pytest.mark.skipif(
        Version(torch.__version__) < Version("2.11"), reason="collectives have no fake tensors before torch 2.11"
    ),
]


@pytest.mark.parametrize(("model", "full", "micro"), [("Qwen 2.5 0.5B", False, 4), ("Qwen 2.5 0.5B", True, 2)])
def test_replicated(device, request, tmp_path, model, full, micro):
    settings = jobs.brie(tmp_path, model, micro, full=full, ranks=RANKS)
    with eight_ranks():
        done = run_job(device, "sft", settings, tmp_path, steps_only=True)
    kind = "full, fp32" if full else "lora, bf16 base"
    check(request, row_of(done, "sft", model, f"8 ranks, {kind}, micro {micro} × 1024"), done)


def test_replicated_7b(device, request, tmp_path):
    settings = jobs.death_dates(tmp_path, "OLMo 2 7B", 1, ranks=RANKS)
    with eight_ranks():
        done = run_job(device, "finetune", settings, tmp_path, steps_only=True)
    check(request, row_of(done, "finetune", "OLMo 2 7B", "8 ranks, full, bf16, checkpointing, micro 1 × 2048"), done)


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
def test_what_the_probe_calls_fitting_fits_every_step_of_a_shard(device, tmp_path, weights):
    settings = jobs.death_dates(tmp_path, "Qwen 2.5 0.5B", 4, ranks=RANKS, shard=True, weights=weights)
    settings["batch"]["micro"] = "auto"
    with eight_ranks(), device.limited_to(6 << 30):
        done = run_job(device, "finetune", settings, tmp_path, steps_only=True)
    probed, needed = done.seen.probes[0].peak, [step.peak for step in done.seen.steps]
    assert 0.95 * probed <= max(needed) <= 1.01 * probed, f"probed {probed:,} bytes, the steps needed {needed}"
    assert done.run.of_type("oom") == []


@pytest.mark.parametrize(("model", "weights"), [("Qwen 2.5 0.5B", "fp32"), ("OLMo 2 7B", "bf16")])
def test_sharded(device, request, tmp_path, model, weights):
    settings = jobs.death_dates(tmp_path, model, 1, ranks=RANKS, shard=True, weights=weights)
    with eight_ranks():
        done = run_job(device, "finetune", settings, tmp_path)
    check(request, row_of(done, "finetune", model, f"8 shards, full, {weights}, checkpointing, micro 1 × 2048"), done)
