"""The loss of training beside a model's own logits: equal but for rounding in every family that packs, and only there."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from remote_payload.settings.training import Lora
from remote_payload.train.model.causal import CausalLoss
from remote_payload.train.model.lora import add_lora
from remote_payload.train.model.packed_losses import Deviations, deviations
from tests.support.models.odd_models import LEAKING, SOUND, CappedHead, ScaledHead, llama_with_head, odd_model

FP32, BF16 = torch.float32, torch.bfloat16
ARITHMETIC = {"fp32": (FP32, FP32), "bf16 autocast": (FP32, BF16), "bf16 weights": (BF16, BF16)}


def texts(draw: random.Random, vocabulary: int = 384) -> tuple[list[int], list[int]]:
    return tuple(
        [draw.randrange(4, vocabulary) for _ in range(draw.randint(*bounds))] for bounds in ((8, 24), (12, 40))
    )


def measured(network: Any, arithmetic: str, seed: int, packed: bool = True) -> Deviations:
    weights, compute = ARITHMETIC[arithmetic]
    first, second = texts(random.Random(seed))
    if not packed:
        second = second[: len(first)]
        first = first[: len(second)]
    return deviations(CausalLoss(network.to(weights)).eval(), first, second, packed, compute)


def close(found: Deviations) -> bool:
    return found.leak <= found.leak_explained and max(found.head, found.packed) <= found.explained


@pytest.mark.parametrize("arithmetic", ARITHMETIC)
@pytest.mark.parametrize("family", SOUND)
def test_rounding_explains_all_that_differs_in_families_of_attention_alone(family: str, arithmetic: str) -> None:
    """With a third of what is allowed to spare, for random weights and texts, some with adapters and with dropout in training."""
    seed = random.randrange(1 << 30)
    draw = random.Random(seed)
    network: Any = odd_model(family, seed, attention_dropout=0.5 if draw.random() < 0.5 else 0.0)
    if draw.random() < 0.5:
        network = network.to(ARITHMETIC[arithmetic][0])
        network = add_lora(
            network, Lora(rank=2, dropout=0.5, targets="auto" if "moe" in family else "all-linear"), "CAUSAL_LM"
        )
        found = deviations(CausalLoss(network).eval(), *texts(draw), packed=True, compute=ARITHMETIC[arithmetic][1])
    else:
        found = measured(network, arithmetic, seed)
    assert close(found), f"seed {seed}: {found}"
    assert max(found.head, found.packed) < found.explained / 1.5, f"seed {seed}: {found}"


@pytest.mark.parametrize("arithmetic", ARITHMETIC)
@pytest.mark.parametrize("family", LEAKING)
def test_a_layer_that_carries_something_over_the_bounds_is_seen(family: str, arithmetic: str) -> None:
    """In bf16 with weights that give a narrow layer the effect that a wide one has: with 0.02 rounding swallows it."""
    seed = random.randrange(1 << 30)
    network = odd_model(family, seed, initializer_range=0.02 if arithmetic == "fp32" else 0.15)
    found = measured(network, arithmetic, seed)
    assert found.leak > found.leak_explained, f"seed {seed}: {found}"


@pytest.mark.parametrize("arithmetic", ARITHMETIC)
@pytest.mark.parametrize("head", [CappedHead, ScaledHead])
def test_what_is_done_to_logits_after_the_head_is_seen_whatever_its_name(head: Any, arithmetic: str) -> None:
    seed = random.randrange(1 << 30)
    for packed in (True, False):
        found = measured(llama_with_head(head, seed), arithmetic, seed, packed)
        assert found.head > found.explained, f"seed {seed}: {found}"
        assert found.leak <= found.leak_explained, f"seed {seed}: {found}"


def test_a_part_of_attention_that_ours_has_not_is_seen() -> None:
    """gpt-oss attends to a sink, a learnt number beside the keys."""
    seed = random.randrange(1 << 30)
    network = odd_model("gpt_oss", seed, num_local_experts=2, num_experts_per_tok=1, sliding_window=6)
    for arithmetic in ARITHMETIC:
        found = measured(network, arithmetic, seed)
        assert found.packed > found.explained and found.head <= found.explained, f"seed {seed}: {found}"


@pytest.mark.parametrize("family", ["mamba", "lfm2", "mistral"])
def test_rows_that_are_not_packed_may_have_any_layers(family: str) -> None:
    seed = random.randrange(1 << 30)
    found = measured(odd_model(family, seed), "fp32", seed, packed=False)
    assert found.leak == 0.0 and close(found), f"seed {seed}: {found}"


def test_the_model_is_left_as_it_was() -> None:
    network: PreTrainedModel = odd_model("qwen2")
    model = CausalLoss(network).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    ids = torch.tensor([texts(random.Random(0))[0]])
    logits = model.own_logits(ids)
    deviations(model, *texts(random.Random(0)), packed=True, compute=FP32)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(model.own_logits(ids), logits)
    assert network.config._attn_implementation == network.model.config._attn_implementation == "gpurun_packed"
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
