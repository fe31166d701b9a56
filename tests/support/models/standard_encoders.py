"""Tiny random encoders of architectures whose sequence-classification class can average over the tokens."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel

from tests.support.models.tiny_models import VOCABULARY, tiny_tokenizer


def save_standard_encoder(family: str, folder: Path) -> Path:
    """A tiny model of ``family`` (eurobert, ultrabert, modernbert) and its tokenizer; returns the folder."""
    config = AutoConfig.for_model(
        family, vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, pad_token_id=1, bos_token_id=0, eos_token_id=3, cls_token_id=0, sep_token_id=3,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModel.from_config(config).float().save_pretrained(folder)
    tiny_tokenizer(chat=False).save_pretrained(folder)
    return folder
