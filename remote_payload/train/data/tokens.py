"""Pre-tokenised data: rows of token ids that are made once, mapped into memory, and used again while corpus and settings are the same.

    <folder>/train.bin validation.bin   rows of max_length ids, uint16 where the vocabulary allows it, else uint32
    <folder>/metadata.json              the corpus, the tokenizer and the settings that they were made from
    <folder>/manifest.json              written last, before the folder is renamed into place

Documents follow one another in the order of the corpus with the end token between them. The sequence is split into rows wherever a row
is full, also inside a document (as for GPT-2 and nanoGPT); only the last incomplete row is left out.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from remote_payload.train.data.batching import batches_of
from remote_payload.train.data.corpus import Piece, read_pieces
from remote_payload.train.data.facts import DataFile
from remote_payload.train.data.tokenizer import tokenizer_hash
from remote_payload.train.errors import InputError, TrainingError
from remote_payload.train.files import write_json
from remote_payload.train.folders import complete_folder, folder_lock, read_manifest

FORMAT = 1
BATCH = 4 << 20  # characters that the tokenizer's threads get at once
MODES = ("auto", "fresh", "cached")
PARTS = ("train", "validation")

Ids = npt.NDArray[np.unsignedinteger[Any]]  # uint16 or uint32


@dataclass(frozen=True)
class Source:
    """What pre-tokenised data is made from. Two equal sources give the same bytes."""

    corpus: list[DataFile]  # facts.describe_files
    max_length: int
    boundary: str = "paragraph"
    text_field: str = "text"
    validation_share: float = 0.01
    seed: int = 0

    @property
    def files(self) -> list[str]:
        return [file.path for file in self.corpus]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.corpus)


@dataclass(frozen=True)
class Tokens:
    """Rows of ids as memory maps (``[rows, max_length]``), and how they came to be."""

    train: Ids
    validation: Ids
    documents: int
    how: str  # "cached" or "fresh"
    reason: str  # why they had to be made, or where they were found
    seconds: float


class Stale(Exception):
    """The folder has no rows that can be used for this source; the message says why."""


def prepare_tokens(
    folder: Path, tokenizer: PreTrainedTokenizerBase, source: Source, mode: str = "auto", say: Callable[[str], None] = print,
    *, checked: bool = False,
) -> Tokens:  # fmt: skip
    """The rows for ``source``: those in ``folder`` if they were made from it (mode auto, cached), else new ones (auto, fresh).

    The files in ``folder`` are compared with their sha256 (about a second a gigabyte), unless another rank has just ``checked`` them.
    Raises InputError in mode ``cached`` when new rows are needed, and for a corpus that is too small for one row of either part.
    """
    started = time.monotonic()
    wanted = _metadata(tokenizer, source)
    with folder_lock(folder, say):
        reason = "settings.tokens is fresh"
        if mode != "fresh":
            try:
                return _open(folder, wanted, "cached", f"made before, in {folder}", started, checked)
            except Stale as stale:
                reason = str(stale)
        if mode == "cached":
            raise InputError(f"settings.tokens is cached, but {reason}; auto or fresh makes it anew")
        say(f"tokenising {len(source.files)} file(s), {source.bytes / 1e6:,.1f} MB: {reason}")
        _make(folder, tokenizer, source, wanted, say)
        return _open(folder, wanted, "fresh", reason, started, checked=True)


def _metadata(tokenizer: PreTrainedTokenizerBase, source: Source) -> dict[str, Any]:
    return {
        "format": FORMAT,
        **asdict(source),
        "corpus": [file.as_dict() for file in source.corpus],
        "vocabulary": len(tokenizer),
        "dtype": "uint16" if len(tokenizer) <= 1 << 16 else "uint32",
        "end_token": tokenizer.eos_token_id,
        "tokenizer_sha256": tokenizer_hash(tokenizer),
        "special_tokens": "text",  # "<|endoftext|>" written in the corpus is text; earlier versions made it the token
    }


def _open(folder: Path, wanted: dict[str, Any], how: str, reason: str, started: float, checked: bool) -> Tokens:
    metadata = _check(folder, wanted, checked)
    train, validation = (_map(folder, part, metadata) for part in PARTS)
    return Tokens(train, validation, metadata["documents"], how, reason, time.monotonic() - started)


def _check(folder: Path, wanted: dict[str, Any], checked: bool) -> dict[str, Any]:
    """The folder's metadata. Raises Stale with the first difference from ``wanted``."""
    if not folder.is_dir():
        raise Stale(f"there is no pre-tokenised data in {folder}")
    try:
        found = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise Stale(f"{folder / 'metadata.json'} cannot be read ({error})") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise Stale(f"{folder} has another format of pre-tokenised data")
    if read_manifest(folder) is None:
        raise Stale(f"{folder} is not complete")
    if not checked and read_manifest(folder, hashes=True) is None:
        raise Stale(f"a file in {folder} is not what was written there (its sha256 differs)")
    if found.get("tokenizer_sha256") != wanted["tokenizer_sha256"]:
        raise Stale(f"the tokenizer is another one than that of {folder}")
    for name in wanted:
        if name != "corpus" and found.get(name) != wanted[name]:
            raise Stale(f"{name} was {found.get(name)} in {folder} and is {wanted[name]} now")
    _check_corpus(found.get("corpus") or [], wanted["corpus"])
    return found


def _check_corpus(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> None:
    old, new = ({entry["path"]: entry["sha256"] for entry in corpus} for corpus in (before, now))
    for path in [*new, *old]:
        if path not in old:
            raise Stale(f"the corpus has a new file, {path}")
        if path not in new:
            raise Stale(f"the corpus no longer has {path}")
        if old[path] != new[path]:
            raise Stale(f"{path} has changed")


def _map(folder: Path, part: str, metadata: dict[str, Any]) -> Ids:
    shape = (metadata[f"{part}_rows"], metadata["max_length"])
    return np.memmap(folder / f"{part}.bin", dtype=metadata["dtype"], mode="r", shape=shape)


def _make(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    source: Source,
    metadata: dict[str, Any],
    say: Callable[[str], None],
) -> None:
    """Makes the rows in a temporary folder that then replaces ``folder``. Memory does not grow with the corpus."""
    _check_disk(folder.parent, source, np.dtype(metadata["dtype"]))
    with complete_folder(folder) as building:
        counts = _write_rows(building, tokenizer, source, metadata, say)
        write_json(building / "metadata.json", {**metadata, **counts})


def _write_rows(
    building: Path,
    tokenizer: PreTrainedTokenizerBase,
    source: Source,
    metadata: dict[str, Any],
    say: Callable[[str], None],
) -> dict[str, int]:
    length, dtype = source.max_length, np.dtype(metadata["dtype"])
    tokens, documents = dict.fromkeys(PARTS, 0), 0
    report = _progress(source.bytes, say)
    pieces = read_pieces(source.files, source.boundary, source.text_field)
    plain = _as_text_only(tokenizer)
    with ExitStack() as stack:
        files = {part: stack.enter_context(open(building / f"{part}.bin", "wb")) for part in PARTS}
        for batch in batches_of(_assigned(pieces, source), lambda assigned: len(assigned[1].text), BATCH):
            texts = [piece.text for _, piece in batch]
            encoded = plain.encode_batch_fast(texts, add_special_tokens=False)
            for part, file in files.items():
                ids = _joined(batch, encoded, part, tokenizer.eos_token_id, dtype)
                file.write(ids.tobytes())
                tokens[part] += len(ids)
            documents += sum(piece.last for _, piece in batch)
            report(sum(map(len, texts)), sum(tokens.values()))
        for part, file in files.items():
            if tokens[part] < length:
                raise InputError(_too_small(part, tokens[part], length))
            file.truncate(tokens[part] // length * length * dtype.itemsize)
    return {"documents": documents} | {f"{part}_rows": tokens[part] // length for part in PARTS}


def _as_text_only(tokenizer: PreTrainedTokenizerBase) -> Any:
    """A copy of the tokenizer that reads "<|endoftext|>" in the corpus as thirteen characters: only a document's end gets that token."""
    plain = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    plain.encode_special_tokens = True
    return plain


def _assigned(pieces: Iterable[Piece], source: Source) -> Iterator[tuple[str, Piece]]:
    """Each piece with its part, train or validation. The seed decides, and all pieces of a document go to the same part."""
    draw = random.Random(source.seed)
    part = None
    for piece in pieces:
        if part is None:
            part = "validation" if draw.random() < source.validation_share else "train"
        yield part, piece
        if piece.last:
            part = None


def _joined(batch: list[tuple[str, Piece]], encoded: list[Any], part: str, end: int, dtype: np.dtype[Any]) -> Ids:
    """The ids of one part of a batch, one after another, with the end token after each document."""
    ids: list[int] = []
    for (own, piece), encoding in zip(batch, encoded, strict=True):
        if own == part:
            ids.extend(encoding.ids)
            if piece.last:
                ids.append(end)
    return np.asarray(ids, dtype=dtype)


def _too_small(part: str, tokens: int, length: int) -> str:
    if part == "train":
        return f"settings.corpus: {tokens} tokens do not fill one row of max_length {length}"
    return f"settings.validation_share: {tokens} tokens held out do not fill one row of max_length {length}; give a larger share"


def _progress(size: int, say: Callable[[str], None]) -> Callable[[int, int], None]:
    """A function that logs about every ten seconds how much of the corpus is done."""
    done, logged = 0, time.monotonic()

    def report(characters: int, tokens: int) -> None:
        nonlocal done, logged
        done += characters
        if time.monotonic() - logged > 10:
            logged = time.monotonic()
            say(f"tokenising: {min(100 * done / max(size, 1), 99):.0f} %, {tokens:,} tokens")

    return report


def _check_disk(folder: Path, source: Source, dtype: np.dtype[Any]) -> None:
    """Raises TrainingError when the disk may be too small. BPE makes about one token of four bytes of text; two are assumed here."""
    needed = source.bytes // 2 * dtype.itemsize
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise TrainingError(
            f"pre-tokenised data may take {needed >> 20} MiB in {folder}, which has {free >> 20} MiB left"
        )
