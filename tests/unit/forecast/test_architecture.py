"""Parameter counts from a config.json alone equal those of the model that transformers builds (on the meta device)."""

import json

import pytest
import torch
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

from remote_payload.forecast.architecture import Architecture, count_parameters, lora_parameters

GEMMA_300M = {
    "vocab_size": 262_144,
    "hidden_size": 768,
    "intermediate_size": 1152,
    "num_hidden_layers": 24,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 256,
}
QWEN_HALF_B = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
OLMO_7B = {
    "vocab_size": 100_352,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "tie_word_embeddings": False,
}
SMOLLM_135M = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
TINY = {
    "vocab_size": 97,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MINILM = {
    "vocab_size": 30_522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}

CAUSAL = {
    "Qwen2.5-0.5B": Qwen2Config(**QWEN_HALF_B),
    "OLMo-2-7B": Olmo2Config(**OLMO_7B),
    "SmolLM2-135M": LlamaConfig(**SMOLLM_135M),
    "GPT-2 small with 30,000 tokens": GPT2Config(vocab_size=30_000, n_positions=512),
    "GPT-2 medium": GPT2Config(vocab_size=30_000, n_positions=1024, n_embd=1024, n_layer=24, n_head=16),
    "tiny Gemma 3": Gemma3TextConfig(**TINY, head_dim=8),
    "tiny Qwen2, untied": Qwen2Config(**TINY),
    "tiny Llama with biases and its own head size": LlamaConfig(
        **TINY, head_dim=10, attention_bias=True, mlp_bias=True
    ),
    "tiny Olmo2 with biases": Olmo2Config(**TINY, attention_bias=True),
    "tiny GPT-2 with its own inner width": GPT2Config(
        vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2, n_inner=20
    ),
}
ENCODERS = {"EmbeddingGemma-300m": Gemma3TextConfig(**GEMMA_300M), "MiniLM": BertConfig(**MINILM)}


@pytest.mark.parametrize("name", CAUSAL)
def test_a_causal_model_has_as_many_parameters_as_its_config_says(name):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(CAUSAL[name])
    full = json.loads(CAUSAL[name].to_json_string(use_diff=False))
    assert count_parameters(Architecture.from_config(full)).total == model.num_parameters()


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_has_as_many_parameters_as_its_config_says(name):
    with torch.device("meta"):
        model = AutoModel.from_config(ENCODERS[name])
    full = json.loads(ENCODERS[name].to_json_string(use_diff=False))
    assert count_parameters(Architecture.from_config(full), head=False).total == model.num_parameters()


def test_a_config_that_leaves_the_defaults_out_is_read_with_them():
    assert Architecture.from_config({**OLMO_7B, "model_type": "olmo2", "tie_word_embeddings": None}).tied is False
    assert Architecture.from_config({**TINY, "model_type": "gemma3_text"}).tied is True
    assert Architecture.from_config({**TINY, "model_type": "gemma3_text"}).head_size == 256
    without = {name: value for name, value in TINY.items() if name != "num_key_value_heads"}
    assert Architecture.from_config({**without, "model_type": "llama"}).key_value_heads == 4


def test_a_nested_text_config_is_the_model():
    nested = {"model_type": "gemma3", "text_config": {**TINY, "head_dim": 8, "model_type": "gemma3_text"}}
    assert Architecture.from_config(nested).hidden == 24


def test_an_unknown_family_and_a_missing_width_are_said():
    with pytest.raises(ValueError, match="no formula for model_type 'mamba'"):
        Architecture.from_config({"model_type": "mamba"})
    with pytest.raises(ValueError, match="llama model without hidden_size"):
        Architecture.from_config({"model_type": "llama"})


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("SmolLM2-135M", ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]),
        ("Qwen2.5-0.5B", ["q_proj", "v_proj"]),
        ("GPT-2 medium", ["c_attn", "c_proj"]),
        ("SmolLM2-135M", "all-linear"),
    ],
)
def test_lora_has_as_many_parameters_as_peft_adds(name, targets):
    from peft import LoraConfig, get_peft_model

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(CAUSAL[name])
    before = model.num_parameters()
    full = json.loads(CAUSAL[name].to_json_string(use_diff=False))
    with torch.device("meta"):
        tuned = get_peft_model(model, LoraConfig(r=16, target_modules=targets, fan_in_fan_out="GPT" in name))
    added = sum(parameter.numel() for parameter in tuned.parameters()) - before
    assert lora_parameters(Architecture.from_config(full), 16, targets) == added


@pytest.mark.parametrize("name", [*CAUSAL, *ENCODERS])
def test_targets_auto_are_on_the_laptop_what_training_adapts(name):
    from remote_payload.settings.training import Lora
    from remote_payload.train.model.lora import add_lora
    from runner.workflow.submission.forecast import ATTENTION

    config = {**CAUSAL, **ENCODERS}[name]
    with torch.device("meta"):
        model = (AutoModelForCausalLM if name in CAUSAL else AutoModel).from_config(config)
        if name == "MiniLM":
            model.pooler = None  # as the recipe does
        tuned = add_lora(model, Lora(rank=8), "CAUSAL_LM" if name in CAUSAL else "FEATURE_EXTRACTION")
    trained = sum(parameter.numel() for parameter in tuned.parameters() if parameter.requires_grad)
    full = json.loads(config.to_json_string(use_diff=False))
    assert lora_parameters(Architecture.from_config(full), 8, ATTENTION) == trained
