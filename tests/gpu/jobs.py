"""The job files of the reports on generated data: their own settings, the real shape of the model, two optimizer steps of two
micro-batches each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.gpu import data
from tests.gpu.shapes import model_folder, tokenizer_of
from tests.support.models.language_data import job_settings

SHORT = {"examples": 2, "max_new_tokens": 4, "latency_examples": 1}  # answers after training
NONE = {"examples": 0, "base": False}
LORA = {"rank": 8, "alpha": 16, "dropout": 0.05}


def batch(micro: int, checkpointing: bool = False, ranks: int = 1) -> dict[str, Any]:
    return {"size": 2 * micro * ranks, "micro": micro, "activation_checkpointing": checkpointing, "compile": False}


def brie(
    folder: Path, model: str, micro: int, *, full: bool = False, checkpointing: bool = False, length: int = 1024,
    ranks: int = 1, generation: dict[str, Any] = NONE, **changes: Any,
) -> dict[str, Any]:  # fmt: skip
    """``sft`` on conversations, packed."""
    rows = data.conversations(2 * micro * ranks, length)
    return job_settings(
        "brie",
        model=str(model_folder(model, folder / "model")),
        train=str(data.write_lines(folder / "train.jsonl", rows)),
        validation=str(data.write_lines(folder / "validation.jsonl", data.conversations(2 * ranks, length))),
        max_length=length,
        max_steps=2,
        batch=batch(micro, checkpointing, ranks),
        lora={"rank": 0} if full else LORA,
        generation=generation,
        smoke_rows=1,
        **changes,
    )


def edgejson(
    folder: Path,
    model: str,
    micro: int,
    *,
    checkpointing: bool = False,
    generation: dict[str, Any] = NONE,
    **changes: Any,
) -> dict[str, Any]:
    """``sft`` on prompts with completions that are JSON."""
    rows = data.extractions(2 * micro, 1024)
    return job_settings(
        "edgejson",
        model=str(model_folder(model, folder / "model", chat=False, pad=False)),
        train=str(data.write_lines(folder / "train.jsonl", rows)),
        validation=str(data.write_lines(folder / "validation.jsonl", data.extractions(2, 1024))),
        test=str(data.write_lines(folder / "test.jsonl", data.extractions(2, 64))),
        max_steps=2,
        batch=batch(micro, checkpointing),
        generation=generation,
        smoke_rows=1,
        **changes,
    )


def legal(
    folder: Path, model: str, micro: int, *, full: bool = False, checkpointing: bool = False, ragged: bool = False
) -> dict[str, Any]:
    """``classify`` on padded texts."""
    job = job_settings("legal")
    return {
        **job,
        "model": str(model_folder(model, folder / "model")),
        "train": str(data.write_lines(folder / "train.jsonl", data.labelled(max(2 * micro, 6), 2048, ragged=ragged))),
        "validation": str(data.write_lines(folder / "validation.jsonl", data.labelled(6, 512, ragged=ragged))),
        "lora": {"rank": 0} if full else job["lora"],
        "max_steps": 2,
        "batch": {**batch(micro, checkpointing), "size": max(2 * micro, 6)},
        "smoke_rows": 2,
    }


def death_dates(
    folder: Path, model: str, micro: int, *, ranks: int = 1, checkpointing: bool = True, **changes: Any
) -> dict[str, Any]:
    """``finetune`` of all weights in bf16 on packed documents, with named evaluation sets."""
    dataset = data.structured(2 * micro * ranks, 2048)
    return job_settings(
        "death_dates",
        model=str(model_folder(model, folder / "model", chat=False)),
        revision=None,
        dataset=str(data.write_json(folder / "dataset.json", dataset)),
        max_steps=2,
        batch=batch(micro, checkpointing, ranks),
        evaluation={"every_epochs": None, "metric": "loss"},
        checkpoint={"every_epochs": None, "resumable": 1},
        smoke_rows=1,
        **changes,
    )


def london(
    folder: Path, job: str, micro: int, *, dropout: float = 0.0, checkpointing: bool = False, ranks: int = 1
) -> dict[str, Any]:
    """``pretrain`` of a GPT-2, all rows of one length."""
    settings = job_settings(job)
    corpus = folder / "corpus.txt"
    corpus.write_text("\n\n".join(data.text_of(600, number) for number in range(20 * micro * ranks)), encoding="utf-8")
    return {
        **settings,
        "corpus": str(corpus),
        "tokenizer": str(tokenizer_of(settings["vocabulary"], folder / "tokenizer")),
        "validation_share": 0.2,
        "validation_rows": 2,
        "model": {**settings["model"], "dropout": dropout},
        "max_steps": 2,
        "batch": batch(micro, checkpointing, ranks),
        "checkpoint": {"every_steps": 2},
        "evaluation": {"every_steps": 2},
        "prompts": settings["prompts"][:1],
        "smoke_rows": 1,
    }


def pairs(folder: Path, model: str, adapter: Path, micro: int, *, checkpointing: bool = False) -> dict[str, Any]:
    """``preference`` on pairs as long as a row, from an adapter that ``sft`` left."""
    return job_settings(
        "brie_preference",
        model=str(folder / "model"),
        adapter=str(adapter),
        train=str(data.write_lines(folder / "pairs.jsonl", data.pairs(2 * micro, 1000))),
        max_steps=2,
        batch=batch(micro, checkpointing),
        generation=SHORT,
        smoke_rows=1,
    )
