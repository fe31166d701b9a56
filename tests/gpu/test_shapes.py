"""The models of the job files at other micro-batches, with and without adapters and recomputed activations: memory, FLOPs and waits.

A row is a run of the recipe: steps, an evaluation, a checkpoint and the results, without answers and what ``without_proofs`` leaves out.
"""

from __future__ import annotations

import itertools

import pytest

from tests.gpu import jobs
from tests.gpu.bounds import check
from tests.gpu.runs import row_of, run_job


def described(full: bool, weights: str, checkpointing: bool, micro: int, length: int) -> str:
    kind = "full" if full else "lora"
    return f"{kind}, {weights}, {'checkpointing, ' if checkpointing else ''}micro {micro} × {length}"


def named(values: tuple) -> str:
    model, full, checkpointing, micro = values
    return "-".join(
        [model.replace(" ", ""), "full" if full else "lora", *(["checkpointing"] * checkpointing), str(micro)]
    )


PACKED = [
    *itertools.product(("Qwen 2.5 0.5B", "Qwen 2.5 1.5B"), (False, True), (False, True), (4,)),
    ("Qwen 2.5 0.5B", False, False, 1),
    ("Qwen 2.5 0.5B", True, False, 1),
    *itertools.product(("Qwen 2.5 3B",), (False, True), (False,), (1,)),
    ("Qwen 2.5 3B", True, True, 4),
    ("SmolLM2 135M", False, True, 8),
    ("SmolLM2 135M", True, False, 4),
    ("SmolLM2 360M", False, False, 4),
    ("SmolLM2 1.7B", True, True, 2),
    ("OLMo 2 7B", False, True, 2),
]


@pytest.mark.parametrize("case", PACKED, ids=named)
def test_packed(device, request, tmp_path, case):
    model, full, checkpointing, micro = case
    settings = jobs.brie(tmp_path, model, micro, full=full, checkpointing=checkpointing)
    done = run_job(device, "sft", settings, tmp_path, count_flops=not checkpointing, steps_only=True)
    weights = "fp32" if full else "bf16 base"
    check(request, row_of(done, "sft", model, described(full, weights, checkpointing, micro, 1024)), done)


@pytest.mark.parametrize(
    ("full", "checkpointing", "micro"), [(False, False, 8), (False, True, 8), (True, False, 4), (True, True, 4)]
)
def test_padded(device, request, tmp_path, full, checkpointing, micro):
    model = "EmbeddingGemma 300M"
    settings = jobs.legal(tmp_path, model, micro, full=full, checkpointing=checkpointing)
    done = run_job(device, "classify", settings, tmp_path, count_flops=not checkpointing, steps_only=True)
    weights = "fp32" if full else "bf16 base"
    check(request, row_of(done, "classify", model, described(full, weights, checkpointing, micro, 2048)), done)


@pytest.mark.parametrize(
    ("weights", "checkpointing", "micro"), [("bf16", False, 1), ("bf16", False, 4), ("fp32", True, 4)]
)
def test_all_weights_in_bf16_and_in_fp32(device, request, tmp_path, weights, checkpointing, micro):
    model = "Qwen 2.5 1.5B"
    settings = jobs.death_dates(tmp_path, model, micro, checkpointing=checkpointing, weights=weights)
    done = run_job(device, "finetune", settings, tmp_path, count_flops=not checkpointing, steps_only=True)
    check(request, row_of(done, "finetune", model, described(True, weights, checkpointing, micro, 2048)), done)


@pytest.mark.parametrize(
    ("job", "model", "micro", "dropout"),
    [("london_slm", "GPT-2 117M", 36, 0.1), ("london_regular", "GPT-2 354M", 8, 0.0)],
)
def test_rows_of_one_length(device, request, tmp_path, job, model, micro, dropout):
    settings = jobs.london(tmp_path, job, micro, dropout=dropout, checkpointing=not dropout)
    done = run_job(device, "pretrain", settings, tmp_path, count_flops=bool(dropout), steps_only=True)
    shape = described(True, f"fp32, dropout {dropout}", not dropout, micro, settings["max_length"])
    check(request, row_of(done, "pretrain", model, shape), done)
