"""The FLOPs of a token beside torch's own counter, which sees every product of a whole forward and backward pass."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    Olmo2Config,
    Qwen2Config,
)

from remote_payload.settings.training import Lora
from remote_payload.train.data.packing import Document
from remote_payload.train.distributed import World
from remote_payload.train.loop import flops
from remote_payload.train.loop.flops import (
    attention_flops,
    flops_of_documents,
    flops_per_token,
    matrix_flops,
    mfu,
    peak_flops,
)
from remote_payload.train.model.attention import ATTENTION
from remote_payload.train.model.causal import CausalLoss
from remote_payload.train.model.classifier import Classifier
from remote_payload.train.model.lora import add_lora
from remote_payload.train.tasks.packed_task import collate

CAUSAL, ENCODERS = ("llama", "qwen2", "olmo2", "gpt2"), ("gemma3_text", "bert")
LLAMA_LIKE = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTED = {"gpt2": ["c_attn", "c_proj", "c_fc"], "bert": ["query", "key", "value", "dense"]}


def random_config(family: str, draw: random.Random) -> Any:
    """A small model of random widths; whole texts are attended to."""
    heads, size, layers = draw.choice((2, 4, 6)), draw.choice((8, 16)), draw.randint(1, 3)
    if family == "gpt2":
        dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        widths = {"n_embd": heads * size, "n_layer": layers, "n_head": heads}
        return GPT2Config(vocab_size=draw.randint(50, 500), n_positions=128, **widths, **dropout)
    widths = {
        "vocab_size": draw.randint(50, 500),
        "hidden_size": heads * size,
        "intermediate_size": draw.randint(16, 200),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
    if family == "bert":
        return BertConfig(**widths, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    grouped = {**widths, "num_key_value_heads": draw.choice((1, heads // 2, heads))}
    if family == "gemma3_text":
        return Gemma3TextConfig(**grouped, head_dim=draw.choice((8, 16, 32)), use_bidirectional_attention=True)
    kind = {"llama": LlamaConfig, "qwen2": Qwen2Config, "olmo2": Olmo2Config}[family]
    return kind(**grouped, tie_word_embeddings=draw.random() < 0.5)


def random_lora(family: str, draw: random.Random) -> Lora | None:
    """None for full training, else an adapter on some of the model's layers, or on all."""
    if draw.random() < 0.4:
        return None
    names = ADAPTED.get(family, LLAMA_LIKE)
    chosen = draw.choice(("all-linear", sorted(draw.sample(names, draw.randint(1, len(names))))))
    return Lora(rank=draw.choice((2, 8)), targets=chosen)


def random_documents(draw: random.Random, vocabulary: int) -> list[Document]:
    lengths = [draw.randint(2, 60) for _ in range(draw.randint(1, 4))]
    return [
        Document([draw.randrange(vocabulary) for _ in range(length)], [draw.random() < 0.5 for _ in range(length - 1)] + [True])
        for length in lengths
    ]  # fmt: skip


def count(work: Any) -> tuple[int, int]:
    """FLOPs of a forward and backward pass: in matrices, and in attention, which is batched products without a fused kernel."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work().backward()
    by_operator = counter.get_flop_counts()["Global"]
    batched = by_operator.pop(torch.ops.aten.bmm, 0) + by_operator.pop(torch.ops.aten.baddbmm, 0)
    return sum(by_operator.values()), batched


@pytest.mark.parametrize("family", CAUSAL)
def test_a_language_model_multiplies_as_many_matrices_as_the_counter_sees(family: str) -> None:
    draw = random.Random(f"flops of {family}")
    for _ in range(12):
        config, lora = random_config(family, draw), random_lora(family, draw)
        network = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION)
        model = CausalLoss(add_lora(network, lora, "CAUSAL_LM") if lora else network).train()
        documents = random_documents(draw, config.vocab_size)
        tokens = sum(map(len, documents))
        matrices, attention = count(lambda: model(**collate(documents).tensors).sum)  # noqa: B023
        ours = attention_flops(model.network, list(map(len, documents))) * tokens
        assert (flops_of_documents(model, documents) * tokens - ours) == pytest.approx(matrices, rel=1e-6), (
            config,
            lora,
        )
        if not lora:  # under LoRA the first layer's scores may need no gradient
            assert ours == pytest.approx(attention, rel=0.01)


@pytest.mark.parametrize("family", ENCODERS)
def test_a_classifier_multiplies_as_many_matrices_as_the_counter_sees(family: str) -> None:
    draw = random.Random(f"flops of {family}")
    for _ in range(12):
        config, lora = random_config(family, draw), random_lora(family, draw)
        encoder = AutoModel.from_config(config)
        if family == "bert":
            encoder.pooler = None  # as the recipe does
        model = Classifier(
            add_lora(encoder, lora, "FEATURE_EXTRACTION") if lora else encoder, draw.randint(2, 9)
        ).train()
        rows, length = draw.randint(1, 4), draw.randint(4, 60)
        ids = torch.tensor([[draw.randrange(config.vocab_size) for _ in range(length)] for _ in range(rows)])
        matrices, attention = count(lambda: model(ids, torch.ones_like(ids)).sum())  # noqa: B023
        ours = attention_flops(model.encoder, [length] * rows) * ids.numel()
        whole = flops_per_token(model.encoder, model.head.weight, [length] * rows, counted=rows) * ids.numel()
        assert whole - ours == pytest.approx(matrices, rel=1e-6), (config, lora)
        if not lora:
            assert ours == pytest.approx(attention, rel=0.01)


def test_a_causal_mask_does_not_halve_attention_and_a_window_limits_it() -> None:
    config = LlamaConfig(**{**SMALL, "num_hidden_layers": 3}, head_dim=8)
    network = nn.Module()
    network.config = config
    assert attention_flops(network, [100]) == 12 * 3 * 4 * 8 * 100
    assert attention_flops(network, [100, 300]) == pytest.approx(12 * 3 * 4 * 8 * (100**2 + 300**2) / 400)
    config.sliding_window, config.layer_types = 64, ["sliding_attention", "full_attention", "sliding_attention"]
    assert attention_flops(network, [100]) == 12 * 4 * 8 * (100 + 2 * 64)
    assert attention_flops(network, [40]) == 12 * 3 * 4 * 8 * 40, "a text that is shorter than the window"
    config.use_bidirectional_attention = True
    assert attention_flops(network, [1000]) == 12 * 4 * 8 * (1000 + 2 * 127), (
        "63 keys before it, 63 after it, and its own"
    )


def test_a_prompt_that_is_not_learnt_costs_no_head() -> None:
    model = CausalLoss(AutoModelForCausalLM.from_config(LlamaConfig(**SMALL), attn_implementation=ATTENTION))
    whole = Document([1] * 10, [True] * 10)
    answer = Document([1] * 10, [False] * 7 + [True] * 3)
    head = 6 * SMALL["vocab_size"] * SMALL["hidden_size"]
    assert flops_of_documents(model, [whole]) - flops_of_documents(model, [answer]) == pytest.approx(
        head * (9 - 3) / 10
    )


def test_recomputation_is_no_work() -> None:
    model = CausalLoss(AutoModelForCausalLM.from_config(LlamaConfig(**SMALL), attn_implementation=ATTENTION)).train()
    before = matrix_flops(model.network, model.head)
    model.network.gradient_checkpointing_enable({"use_reentrant": False})
    documents = [Document([1] * 30, [True] * 30)]
    counted, _ = count(lambda: model(**collate(documents).tensors).sum)
    assert matrix_flops(model.network, model.head) == before < counted / 30


SMALL = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


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
