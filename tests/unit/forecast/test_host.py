"""The forecast of host memory: what a run holds at its worst moment, and several runs on one box."""

from __future__ import annotations

import random
from dataclasses import replace

from remote_payload.forecast.architecture import count_parameters
from remote_payload.forecast.disk import checkpoint_bytes
from remote_payload.forecast.host import PROCESS, forecast_host
from remote_payload.forecast.memory import GIB
from tests.unit.forecast.test_memory import GEMMA_300M, OLMO_7B, S0, S2


def test_a_full_7b_run_holds_its_checkpoint_and_eight_of_them_need_370_gb() -> None:
    one = forecast_host(OLMO_7B, S2)
    assert one.checkpoint == checkpoint_bytes(OLMO_7B, S2) == 3 * 2 * count_parameters(OLMO_7B).total
    assert one.total == PROCESS + one.checkpoint
    eight = forecast_host(OLMO_7B, S2, runs=8)
    assert eight.total == 8 * one.total > 345 * GIB


def test_a_run_of_eight_processes_loads_eight_copies_and_saves_one() -> None:
    alone, eight = forecast_host(OLMO_7B, S2), forecast_host(OLMO_7B, S2, processes=8)
    assert (eight.loading, eight.checkpoint) == (8 * alone.loading, alone.checkpoint)
    assert eight.each == 8 * PROCESS + eight.loading > eight.processes + eight.checkpoint


def test_an_adapter_s_checkpoint_is_small_so_loading_is_the_peak() -> None:
    lora = forecast_host(GEMMA_300M, S0)
    assert lora.checkpoint < lora.loading and lora.each == lora.processes + lora.loading


def test_more_of_anything_never_needs_less() -> None:
    draw = random.Random(5)
    for _ in range(200):
        processes, runs = draw.randint(1, 8), draw.randint(1, 8)
        shape = replace(draw.choice((S0, S2)), weights=draw.choice(("float32", "bfloat16")))
        model, resumable = draw.choice((GEMMA_300M, OLMO_7B)), draw.random() < 0.5
        found = forecast_host(model, shape, processes=processes, runs=runs, resumable=resumable)
        more = forecast_host(model, shape, processes=processes + 1, runs=runs, resumable=True)
        assert found.each < more.each and found.total == runs * found.each
        assert found.each <= forecast_host(model, replace(shape, weights="float32"), processes=processes).each
