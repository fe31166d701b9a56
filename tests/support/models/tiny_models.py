"""Tiny random models of the real architectures, built from their config classes, and a tokenizer trained on the spot.

Each is a few tens of thousands of parameters: enough for every code path (grouped-query attention, sliding windows, tied
embeddings, q/k norms), too small to learn much. No network, no stored files.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    Olmo2Config,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

ENCODERS = ("gemma3", "bert")
CAUSAL = ("qwen2", "olmo2", "gpt2", "llama")
VOCABULARY = 384

CORPUS = (
    "The licensor grants you a licence to copy, modify and distribute the work, without warranty of any kind.",
    "Permission is hereby granted, free of charge, to any person obtaining a copy of this software.",
    "The ship left London in the spring of 1823, and nobody on the quay believed that it would return.",
    'Reply with JSON: {"name": "Ada", "born": 1815, "fields": ["mathematics", null, {"since": 1833}]}',
    "Who was the mayor of the town in 1901? The mayor of the town in 1901 was called Brown.",
    "def read(path): return [line.strip() for line in open(path)]",
    "A quick start: install the package, import it, call run() and look at the figures it prints.",
)

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


TOOL_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)  # Qwen's way with tools, shortened


def tiny_tokenizer(chat: bool = True, pad: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of VOCABULARY tokens, trained here; ``chat`` gives it Qwen's markers and template."""
    special = ["<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>" if chat else "<|endoftext|>",
        pad_token="<|pad|>" if pad else None,
        model_max_length=512,
    )
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_config(name: str) -> PreTrainedConfig:
    """The config of one of ENCODERS or CAUSAL at toy size: two layers, hidden size 32, 512 positions."""
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 3,
    }
    grouped = {**shape, "num_key_value_heads": 2}
    if name == "gemma3":
        # As EmbeddingGemma has it: bidirectional, most layers with a sliding window. Two layers, so one of each kind.
        kinds = ["sliding_attention", "full_attention"]
        return Gemma3TextConfig(
            **grouped, head_dim=8, sliding_window=16, layer_types=kinds, use_bidirectional_attention=True
        )
    if name == "bert":
        bert = {key: value for key, value in shape.items() if key not in ("bos_token_id", "eos_token_id")}
        return BertConfig(**bert, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    if name == "qwen2":
        return Qwen2Config(**grouped, tie_word_embeddings=True)
    if name == "olmo2":
        return Olmo2Config(**grouped)
    if name == "llama":
        return LlamaConfig(**grouped, tie_word_embeddings=True)
    if name == "gpt2":
        return GPT2Config(
            vocab_size=VOCABULARY, n_positions=512, n_embd=32, n_layer=2, n_head=4,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=3, pad_token_id=1,
        )  # fmt: skip
    raise ValueError(f"no tiny model called {name}")


def tiny_model(name: str, seed: int = 0) -> PreTrainedModel:
    """A random model in fp32, the same for the same seed: without a head for ENCODERS, a language model for CAUSAL."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        family = AutoModel if name in ENCODERS else AutoModelForCausalLM
        return family.from_config(tiny_config(name)).float().eval()


def save_tiny_model(name: str, folder: Path, *, seed: int = 0, chat: bool = True, pad: bool = True) -> Path:
    """A model folder as the Hub has them (config, safetensors, tokenizer); returns the folder."""
    tiny_model(name, seed).save_pretrained(folder)
    tiny_tokenizer(chat=chat, pad=pad).save_pretrained(folder)
    return folder


def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer as Llama 2 and Mistral have theirs: BPE over spaces as ▁, with bytes for what is not in it, and a first token <s>.

    It has single characters and no merges: between several ways to merge, llama.cpp may take another than transformers.
    """
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    trainer = trainers.BpeTrainer(vocab_size=len(special), special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>", model_max_length=512
    )  # fmt: skip
