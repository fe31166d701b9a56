"""The forecast against what autograd really keeps on small models, and against what the reports measured."""

import random
from dataclasses import replace

import pytest
import torch
from transformers import AutoModel, BertConfig, Gemma3TextConfig, GPT2Config, LlamaConfig, Olmo2Config, Qwen2Config

from remote_payload.forecast.activations import KEPT, kept_per_layer
from remote_payload.forecast.architecture import Architecture, count_parameters
from remote_payload.forecast.memory import GIB, TrainingShape, forecast_memory, largest_micro_batch
from remote_payload.settings.training import Lora
from remote_payload.train.model.causal import CHUNK_BYTES
from remote_payload.train.model.lora import add_lora
from tests.unit.forecast.test_architecture import QWEN_HALF_B as QWEN_WIDTHS

COMMON = {
    "vocab_size": 64,
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
CONFIGS = {  # without dropout, whose masks a CPU keeps in another form
    "llama": lambda layers: LlamaConfig(**COMMON, num_hidden_layers=layers, num_key_value_heads=2),
    "qwen2": lambda layers: Qwen2Config(**COMMON, num_hidden_layers=layers, num_key_value_heads=2),
    "olmo2": lambda layers: Olmo2Config(**COMMON, num_hidden_layers=layers, num_key_value_heads=4),
    "gemma3_text": lambda layers: Gemma3TextConfig(
        **COMMON, num_hidden_layers=layers, num_key_value_heads=1, head_dim=32
    ),
    "gpt2": lambda layers: GPT2Config(
        vocab_size=64, n_positions=256, n_embd=96, n_layer=layers, n_head=4, **NO_DROPOUT
    ),
    "gpt2 fused": lambda layers: GPT2Config(
        vocab_size=64,
        n_positions=256,
        n_embd=96,
        n_layer=layers,
        n_head=4,
        activation_function="gelu_pytorch_tanh",
        **NO_DROPOUT,
    ),
    "bert": lambda layers: BertConfig(
        **COMMON, num_hidden_layers=layers, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    ),
}
OLMO_7B = Architecture.from_config(
    {
        "model_type": "olmo2",
        "vocab_size": 100_352,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    }
)
GEMMA_300M = Architecture.from_config(
    {
        "model_type": "gemma3_text",
        "vocab_size": 262_144,
        "hidden_size": 768,
        "intermediate_size": 1152,
        "num_hidden_layers": 24,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 256,
    }
)
QWEN_HALF_B = Architecture.from_config({"model_type": "qwen2", **QWEN_WIDTHS})
S0 = TrainingShape(
    micro_batch=16,
    length=2048,
    weights="bfloat16",
    lora_rank=16,
    lora_targets=("q_proj", "k_proj", "v_proj", "o_proj"),
    lora_dropout=0.1,
    language_head=False,
    masked=True,
)
S2 = TrainingShape(micro_batch=1, length=2048, weights="bfloat16")


def kept_by_autograd(family, layers, length, precision, lora=None) -> int:
    """Bytes that one forward pass of two sequences keeps for the backward pass, parameters left out."""
    model = AutoModel.from_config(CONFIGS[family](layers))
    model = model.bfloat16() if precision in ("half", "frozen") else model
    model = add_lora(model, lora, "FEATURE_EXTRACTION").train() if lora else model
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor too, so that no address is used twice
        return tensor

    tokens = torch.zeros(2, length, dtype=torch.long)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision in ("mixed", "frozen"))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), autocast:
        model(input_ids=tokens, use_cache=False) if family != "bert" else model(input_ids=tokens)
    return sum(size for size, _ in kept.values())


def per_layer_and_token(family, precision, lora=None) -> float:
    """Differences over depth and length, so that embeddings and autocast's copies of the weights drop out."""
    kept = {(n, t): kept_by_autograd(family, n, t, precision, lora) for n in (1, 3) for t in (64, 128)}
    return ((kept[3, 128] - kept[1, 128]) - (kept[3, 64] - kept[1, 64])) / 2 / (2 * 64)


@pytest.mark.parametrize("precision", ["half", "mixed", "full"])
@pytest.mark.parametrize("family", CONFIGS)
def test_a_layer_keeps_what_the_forecast_says(family, precision):
    torch.set_num_threads(1)
    model = Architecture.from_config(CONFIGS[family](1).to_dict())
    shape = TrainingShape(
        micro_batch=2,
        length=128,
        weights="bfloat16" if precision == "half" else "float32",
        autocast=precision == "mixed",
    )
    # Gemma 3 hands its sliding-window mask to SDPA, which on the CPU is kept once a layer.
    tolerance = 0.12 if family == "gemma3_text" else 0.02
    assert kept_per_layer(model, shape) == pytest.approx(per_layer_and_token(family, precision), rel=tolerance)


LAYERS = {"gpt2": ["c_attn", "c_fc", "attn.c_proj"], "bert": ["query", "key", "value", "intermediate.dense"]}


@pytest.mark.parametrize("precision", ["frozen", "frozen full"])
@pytest.mark.parametrize("family", CONFIGS)
def test_a_frozen_layer_keeps_what_the_forecast_says_whichever_of_its_parts_are_adapted(family, precision):
    torch.set_num_threads(1)
    draw = random.Random(f"{family} {precision}")
    model = Architecture.from_config(CONFIGS[family](1).to_dict())
    names = LAYERS.get(model.family, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
    for _ in range(3):
        # In fp32 an adapter's input may be kept already, by another adapter or by attention; the forecast counts it again.
        targets = draw.sample(names, draw.randint(1, len(names))) if precision == "frozen" else names[:1]
        lora = Lora(rank=draw.choice((2, 16)), targets=targets)
        shape = TrainingShape(
            2, 128, "bfloat16" if precision == "frozen" else "float32", precision == "frozen", lora.rank, tuple(targets)
        )
        expected = kept_per_layer(model, shape)
        if precision == "frozen" and model.family in ("gpt2", "bert"):
            expected -= 4 * model.hidden  # on a CPU autocast leaves layer_norm in bf16; on a GPU its inputs are fp32
        tolerance = 0.12 if family == "gemma3_text" else 0.02
        assert expected == pytest.approx(per_layer_and_token(family, precision, lora), rel=tolerance), targets


def test_every_known_family_has_its_multiples():
    assert set(KEPT) == {name.split()[0] for name in CONFIGS}
    assert all(set(table) == {"half", "mixed", "full", "frozen", "frozen full"} for table in KEPT.values())


def test_a_full_fine_tune_of_olmo_7b_needs_the_79_gb_that_the_report_measured():
    predicted = forecast_memory(OLMO_7B, S2)
    assert predicted.parts.weights == 2 * count_parameters(OLMO_7B).total
    assert predicted.total / 1e9 == pytest.approx(79, rel=0.15)
    assert forecast_memory(OLMO_7B, replace(S2, checkpoint_activations=True)).total < 0.85 * predicted.total
    assert forecast_memory(OLMO_7B, replace(S2, weights="float32")).total > 120e9
    assert forecast_memory(OLMO_7B, replace(S2, weights="float32", shards=8)).total < 80 * GIB


def test_batch_16_of_2048_tokens_does_not_fit_24_gb_and_a_smaller_micro_batch_does():
    assert forecast_memory(GEMMA_300M, S0).total > 24 * GIB
    fits = largest_micro_batch(GEMMA_300M, S0, batch=32, capacity=24 * GIB)
    assert fits in (2, 4, 8)
    assert forecast_memory(GEMMA_300M, replace(S0, micro_batch=fits)).total <= 24 * GIB
    assert largest_micro_batch(OLMO_7B, S2, batch=8, capacity=24 * GIB) == 0


def test_lora_trains_little_and_keeps_no_optimizer_for_the_base():
    predicted = forecast_memory(GEMMA_300M, S0)
    assert predicted.trainable < 0.02 * predicted.parameters
    assert predicted.parts.optimizer == 8 * predicted.trainable


def test_logits_never_exceed_a_chunk():
    """S1's evaluation kept 4.6 GiB of them."""
    shape = replace(S2, lora_rank=8, logit_chunk=CHUNK_BYTES["cuda"], checkpoint_activations=True)
    parts = [forecast_memory(QWEN_HALF_B, replace(shape, micro_batch=size)).parts for size in (1, 2)]
    assert [part.logits for part in parts] == [1.5 * CHUNK_BYTES["cuda"]] * 2, "in fp32, and their gradient in bf16"
    pairs = forecast_memory(QWEN_HALF_B, replace(shape, pairs=True)).parts
    assert pairs.logits == 3 * CHUNK_BYTES["cuda"], "what the backward pass of log-probabilities holds of a chunk"
    assert TrainingShape(1, 1).logit_chunk == CHUNK_BYTES["cuda"]


def test_the_breakdown_adds_up():
    predicted = forecast_memory(OLMO_7B, S2)
    document = predicted.as_dict()
    assert document["total"] == predicted.total == sum(document["parts"].values())
    assert dict(predicted.by_size()) == document["parts"]
    sizes = [size for _, size in predicted.by_size()]
    assert sizes == sorted(sizes, reverse=True)
