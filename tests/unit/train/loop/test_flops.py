from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from remote_payload.settings.training import Lora
from remote_payload.train.distributed import World
from remote_payload.train.loop import flops
from remote_payload.train.loop.flops import flops_per_token, mfu, peak_flops
from remote_payload.train.model.lora import add_lora
from tests.support.models.tiny_models import tiny_model


@pytest.mark.parametrize(
    ("name", "rank"), [("bert", 0), ("bert", 4), ("gemma3", 0), ("gemma3", 4), ("qwen2", 0), ("olmo2", 0)]
)
def test_the_formula_agrees_with_counting_every_product(name: str, rank: int) -> None:
    model = tiny_model(name).train()
    causal = name in ("qwen2", "olmo2")
    if rank:
        model = add_lora(model, Lora(rank=rank), "FEATURE_EXTRACTION")
    ids = torch.randint(4, 300, (2, 64))
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        output = model(input_ids=ids, use_cache=False) if causal else model(input_ids=ids)
        (output.logits if causal else output.last_hidden_state).sum().backward()
    counted = counter.get_total_flops() / ids.numel()
    # The counter sees all of a causal model's scores; half of them is all that the model needs.
    formula = (
        flops_per_token(model, model.config, 64, causal=False)
        if not causal
        else flops_per_token(model, model.config, 128, True)
    )
    assert formula == pytest.approx(counted, rel=0.12)


def test_peaks_are_found_by_the_drivers_names() -> None:
    names = [
        "NVIDIA H100 80GB HBM3",
        "NVIDIA H100 PCIe",
        "NVIDIA GeForce RTX 3090",
        "NVIDIA GeForce RTX 3090 Ti",
        "Tesla T4",
    ]
    assert [peak_flops(name) for name in names] == [989.4e12, 756e12, 71.2e12, 80e12, None]


@pytest.mark.stand_in
def test_mfu_is_a_share_of_all_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flops.torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    world = World(0, 2, 0, torch.device("cuda", 0))
    assert mfu(989.4e12, world) == pytest.approx(0.5)
    assert mfu(1e12, World(0, 1, 0, torch.device("cpu"))) is None
