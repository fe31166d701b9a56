"""A byte-level BPE tokenizer that is trained on a corpus and kept as a tokenizer folder of transformers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from remote_payload.train.data.corpus import read_pieces, texts
from remote_payload.train.data.facts import DataFile
from remote_payload.train.errors import InputError
from remote_payload.train.folders import complete_folder, folder_lock, read_manifest

END, PAD = "<|endoftext|>", "<|pad|>"


def prepare_tokenizer(
    folder: Path,
    corpus: list[DataFile],
    vocabulary: int,
    max_length: int,
    *,
    boundary: str = "paragraph",
    text_field: str = "text",
    mode: str = "auto",
    say: Callable[[str], None] = print,
) -> PreTrainedTokenizerBase:
    """The tokenizer for a corpus (``facts.describe_files``): the one in ``folder`` if it was trained on this corpus, else a new one.

    ``mode`` is as for rows (``prepare_tokens``): ``fresh`` trains a new one, ``cached`` raises InputError if one has to be trained.
    """
    wanted = {"vocabulary": vocabulary, "text_field": text_field, "corpus": [file.as_dict() for file in corpus]}
    with folder_lock(folder, say):
        stale = _why_not(folder, wanted)
        if mode == "cached" and stale:
            raise InputError(f"settings.tokens is cached, but {stale}; auto or fresh makes it anew")
        if mode == "fresh" or stale:
            size = sum(file.bytes for file in corpus)
            reason = stale or "settings.tokens is fresh"
            say(f"training a tokenizer of {vocabulary:,} tokens from {size / 1e6:,.1f} MB: {reason}")
            pieces = read_pieces([file.path for file in corpus], boundary, text_field)
            tokenizer = train_tokenizer(texts(pieces), vocabulary, max_length)
            with complete_folder(folder, made_from=wanted) as building:
                tokenizer.save_pretrained(building)
        tokenizer = load_tokenizer(folder)
    tokenizer.model_max_length = max_length
    return tokenizer


def _why_not(folder: Path, wanted: dict[str, Any]) -> str | None:
    """Why the tokenizer in a folder cannot be used; None if it can."""
    manifest = read_manifest(folder)
    if manifest is None:
        return f"there is no tokenizer in {folder}"
    if read_manifest(folder, hashes=True) is None:
        return f"a file of the tokenizer in {folder} is not what was written there (its sha256 differs)"
    made_from = manifest.get("made_from") or {}
    changed = [name for name, value in wanted.items() if made_from.get(name) != value]
    return f"the tokenizer in {folder} was made from another {' and '.join(changed)}" if changed else None


def train_tokenizer(texts: Iterator[str], vocabulary: int, max_length: int) -> PreTrainedTokenizerBase:
    """A PreTrainedTokenizerFast of at most ``vocabulary`` tokens, as GPT-2's: every byte has a token, so no text is unknown.

    The end-of-text token is also the one at the beginning. Padding has a token of its own, so that an end is never masked with it.
    A small corpus may give fewer tokens than ``vocabulary``. Texts are streamed; only word counts are kept in memory.
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


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """The sha256 of everything that decides how text becomes tokens. The folder that it was loaded from does not matter."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    for name in ("truncation", "padding"):  # these belong to the latest call, not to the tokenizer
        backend.pop(name, None)
    canonical = json.dumps(backend, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder, without network. Raises InputError when there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"settings.tokenizer: {folder} cannot be loaded: {str(error).splitlines()[0]}") from None
