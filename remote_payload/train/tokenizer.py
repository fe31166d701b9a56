"""A byte-level BPE tokenizer trained from a corpus, kept as a transformers tokenizer folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

END, PAD = "<|endoftext|>", "<|pad|>"


def train_tokenizer(texts: Iterator[str], vocabulary: int, max_length: int) -> Any:
    """A PreTrainedTokenizerFast of at most ``vocabulary`` tokens, GPT-2's kind: every byte has one, so nothing is unknown.

    The end-of-text token is also the beginning; padding has a token of its own, so that an end is never masked by accident.
    A small corpus may give fewer tokens: ``len(tokenizer)`` says how many. Texts are streamed; only word counts are kept.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=PAD, model_max_length=max_length
    )


def tokenizer_hash(tokenizer: Any) -> str:
    """sha256 of what decides how text becomes tokens, whatever folder or order of files it was loaded from."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    for passing in ("truncation", "padding"):  # set anew at every call
        backend.pop(passing, None)
    canonical = json.dumps(backend, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer kept in a folder, without asking the network."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
