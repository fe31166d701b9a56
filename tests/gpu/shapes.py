"""The models of the job files at their real shapes, and a few that none of them has; and folders with them, as the Hub has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    Olmo2Config,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from tests.gpu.devices import is_null
from tests.support.models.tiny_models import tiny_tokenizer


def qwen(hidden: int, layers: int, heads: int, inner: int, **more: object) -> Qwen2Config:
    return Qwen2Config(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=2,
        intermediate_size=inner, vocab_size=151936, tie_word_embeddings=True, max_position_embeddings=32768, **more,
    )  # fmt: skip


def llama(hidden: int, layers: int, heads: int, kv: int, inner: int, **more: object) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv,
        intermediate_size=inner, vocab_size=49152, tie_word_embeddings=True, max_position_embeddings=8192, **more,
    )  # fmt: skip


def embedding_gemma(layers: int = 24) -> Gemma3TextConfig:
    return Gemma3TextConfig(
        hidden_size=768, num_hidden_layers=layers, num_attention_heads=3, num_key_value_heads=1, head_dim=256,
        intermediate_size=1152, vocab_size=262144, use_bidirectional_attention=True, sliding_window=512,
        max_position_embeddings=2048,
    )  # fmt: skip


def olmo(layers: int = 32) -> Olmo2Config:
    return Olmo2Config(
        hidden_size=4096, num_hidden_layers=layers, num_attention_heads=32, num_key_value_heads=32,
        intermediate_size=11008, vocab_size=100352, tie_word_embeddings=False, max_position_embeddings=4096,
    )  # fmt: skip


SHAPES: dict[str, Callable[[], PreTrainedConfig]] = {
    "EmbeddingGemma 300M": embedding_gemma,
    "Qwen 2.5 0.5B": lambda: qwen(896, 24, 14, 4864),
    "Qwen 2.5 1.5B": lambda: qwen(1536, 28, 12, 8960),
    "Qwen 2.5 3B": lambda: qwen(2048, 36, 16, 11008),
    "SmolLM2 135M": lambda: llama(576, 30, 9, 3, 1536),
    "SmolLM2 360M": lambda: llama(960, 32, 15, 5, 2560),
    "SmolLM2 1.7B": lambda: llama(2048, 24, 32, 32, 8192),
    "OLMo 2 7B": olmo,
    # What no job file has: each takes another way through attention.
    "heads of 320": lambda: llama(1280, 4, 4, 4, 2560, head_dim=320),
    "window of 256": lambda: qwen(896, 4, 14, 4864, use_sliding_window=True, sliding_window=256, max_window_layers=0),
    "dropout in attention": lambda: llama(576, 4, 9, 3, 1536, attention_dropout=0.1),
}


def model_folder(name: str, folder: Path, *, chat: bool = True, pad: bool = True) -> Path:
    """A folder with a model of SHAPES: random weights on a real GPU, the config alone on the null GPU. Its vocabulary has the real
    size; the tokenizer, trained on the spot, uses the first few hundred words of it."""
    config = SHAPES[name]()
    config.save_pretrained(folder)
    if not is_null():
        family = AutoModel if config.model_type == "gemma3_text" else AutoModelForCausalLM
        family.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    tiny_tokenizer(chat=chat, pad=pad).save_pretrained(folder)
    return folder


def tokenizer_of(words: int, folder: Path) -> Path:
    """A tokenizer with a vocabulary of so many words, most of which occur in no text."""
    tokenizer: PreTrainedTokenizerFast = tiny_tokenizer(chat=False)
    tokenizer.add_tokens([f"<unused {number}>" for number in range(words - len(tokenizer))])
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text("{}", encoding="utf-8")  # a recipe takes no folder without one for a model's
    return folder
