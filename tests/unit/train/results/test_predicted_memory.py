"""The prediction in a run's record: made for what really ran, so that it can be held against the measured peak."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from remote_payload.forecast.memory import MemoryRecord
from remote_payload.settings.training import Lora
from remote_payload.train.distributed import World
from remote_payload.train.model import attention
from remote_payload.train.model.lora import add_lora
from remote_payload.train.results.predicted_memory import predicted_memory
from tests.support.models.tiny_models import tiny_model

GPU = torch.device("cuda", 0)


def predicted(
    recipe: str = "sft", world: World | None = None, lora: bool = False, length: int = 512, dtype: str = ""
) -> MemoryRecord:
    network: Any = tiny_model("qwen2").bfloat16() if lora else tiny_model("qwen2")
    network = add_lora(network, Lora(rank=4), "CAUSAL_LM") if lora else network
    batch = SimpleNamespace(activation_checkpointing=False)
    settings = SimpleNamespace(precision="auto", batch=batch)
    run: Any = SimpleNamespace(recipe=recipe, world=world or World(0, 1, 0, GPU), settings=settings)
    dtype = dtype or ("bfloat16" if lora else "float32")
    outcome: Any = SimpleNamespace(progress=SimpleNamespace(micro_batch_rows=2), dtype=dtype)
    found = predicted_memory(run, network, outcome, length, language_head=True, masked=False)
    assert found
    return found


def test_a_row_of_preference_is_both_answers_of_a_pair() -> None:
    pairs, rows = predicted("preference", length=4096, lora=True), predicted("sft", length=8192, lora=True)
    assert pairs["parts"]["activations"] == rows["parts"]["activations"], (
        "both in the loss, which outweighs a layer here"
    )
    assert pairs["parts"]["logits"] == 2 * rows["parts"]["logits"] == 3 * 2 * 8192 * 384 * 4, (
        "and each chunk of logits three times"
    )


def test_a_sharded_run_holds_its_part_of_the_optimizer() -> None:
    alone, sharded = predicted(), predicted(world=World(0, 8, 0, GPU, sharded=True))
    replicated = predicted(world=World(0, 8, 0, GPU))
    assert replicated == alone
    assert sharded["parts"]["optimizer"] == alone["parts"]["optimizer"] // 8


def test_weights_count_in_the_dtype_that_was_trained_whatever_was_loaded_afterwards() -> None:
    """A sharded bf16 run was predicted in fp32: the network in memory at its end is the saved model, loaded again."""
    whole, half = predicted(), predicted(dtype="bfloat16")
    assert half["parts"]["optimizer"] == whole["parts"]["optimizer"] // 2


def test_an_adapter_is_what_is_trained() -> None:
    found = predicted(lora=True)
    assert found["trainable"] == found["parts"]["optimizer"] // 8 < found["parameters"] // 5


@pytest.mark.stand_in
def test_where_attention_copies_keys_and_values_they_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    grouped = predicted()
    monkeypatch.setattr(attention, "varlen_attn", lambda query, *, is_causal=False: query)  # as in torch 2.10
    tokens, layers, wider = 2 * 512, 2, 32 - 16  # the queries' width without that of keys and values
    repeated = predicted()
    assert repeated["parts"]["activations"] - grouped["parts"]["activations"] == tokens * layers * 2 * 2 * wider


def test_no_length_and_an_unknown_family_are_not_predicted() -> None:
    network: Any = SimpleNamespace(dtype=torch.float32, config=SimpleNamespace(to_dict=lambda: {"model_type": "mamba"}))
    settings = SimpleNamespace(precision="fp32", batch=SimpleNamespace(activation_checkpointing=False))
    run: Any = SimpleNamespace(recipe="sft", world=World(0, 1, 0, GPU), settings=settings)
    outcome: Any = SimpleNamespace(progress=SimpleNamespace(micro_batch_rows=2), dtype="float32")
    assert predicted_memory(run, network, outcome, None, language_head=True, masked=False) is None
    assert predicted_memory(run, network, outcome, 512, language_head=True, masked=False) is None
