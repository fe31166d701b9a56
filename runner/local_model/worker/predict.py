"""Classes, or plain embeddings, of texts: padded batches of similar length, measured after a warm-up."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from runner.local_model.worker.device import synchronize
from runner.local_model.worker.reference import check_finite, check_width, read_expected, read_inputs

BUCKET = (
    64  # lengths are padded to multiples of it: Metal compiles, and CUDA tunes, anew for each shape not seen before
)
BATCH_TOKENS = 4096
BATCH_ROWS = 16

Batch = tuple[list[int], int]  # rows, and the length they are padded to


@torch.inference_mode()
def predict(request: dict[str, Any], model: Any, tokenizer: Any, device: str, say: Any) -> dict[str, Any]:
    """How many of each class, how fast, and how far from the box's logits."""
    limit = request["max_length"]
    rows = [tokenizer(row["text"], truncation=True, max_length=limit)["input_ids"] for row in read_inputs(request)]
    batches = list(bucketed([len(row) for row in rows], limit))
    for indices, width in _to_warm_up(batches, device):
        _forward(request, model, tokenizer, [rows[index] for index in indices], width, device)
    synchronize(device)
    began, outputs = time.perf_counter(), {}
    for indices, width in batches:
        found = _forward(request, model, tokenizer, [rows[index] for index in indices], width, device)
        outputs.update(zip(indices, found.float().cpu(), strict=True))
        say(done=len(outputs), total=len(rows))
    seconds = time.perf_counter() - began
    logits = torch.stack([outputs[index] for index in range(len(rows))])
    check_finite(logits, "this machine's predictions")
    answered: dict[str, Any] = {"samples": len(rows), "seconds": seconds, "counts": None, "comparison": None}
    if request["kind"] != "encoder":
        answered["counts"] = torch.bincount(logits.argmax(-1), minlength=logits.shape[-1]).tolist()
        answered["comparison"] = compare(request, logits)
    return answered


def bucketed(lengths: Sequence[int], limit: int) -> Iterator[Batch]:
    """Rows in batches of one padded length, a multiple of BUCKET or the limit, the longest first."""
    widths = [max(length, min(-(-max(length, 1) // BUCKET) * BUCKET, limit)) for length in lengths]
    order = sorted(range(len(lengths)), key=lambda index: (-widths[index], index))
    while order:
        width = widths[order[0]]
        most = max(1, min(BATCH_ROWS, BATCH_TOKENS // width))
        batch = [index for index in order[:most] if widths[index] == width]
        order = order[len(batch) :]
        yield batch, width


def _to_warm_up(batches: Sequence[Batch], device: str) -> list[Batch]:
    """One batch of each shape where shapes are compiled; on the CPU the smallest, for memory and threads."""
    if device == "cpu":
        return [batches[-1]]
    return list({(len(indices), width): (indices, width) for indices, width in batches}.values())


def _forward(
    request: dict[str, Any], model: Any, tokenizer: Any, rows: Sequence[Sequence[int]], width: int, device: str
) -> Tensor:
    """Logits ``[rows, classes]``; of an encoder the first token's vector ``[rows, hidden]``."""
    pad = tokenizer.pad_token_id or 0
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    output = model(input_ids=ids, attention_mask=mask)
    if request["kind"] == "encoder":
        return output.last_hidden_state[:, 0]
    return output if torch.is_tensor(output) else output.logits


def compare(request: dict[str, Any], logits: Tensor) -> dict[str, Any] | None:
    """Each row beside the box's: the largest difference, and, where the class differs, by how much it won here."""
    expected = read_expected(request, len(logits), "logits")
    if expected is None:
        return None
    there = expected["logits"]
    check_width(logits, there)
    labels = request["labels"] if len(request["labels"]) == logits.shape[-1] else range(logits.shape[-1])
    rows = []
    for row, wanted in zip(logits, there, strict=True):
        chosen, said = int(row.argmax()), int(wanted.argmax())
        gap = float(row[chosen] - row[said]) if chosen != said else None
        difference = float((row - wanted).abs().max())
        rows.append({"difference": difference, "gap": gap, "here": str(labels[chosen]), "there": str(labels[said])})
    agree = sum(row["gap"] is None for row in rows)
    return {"rows": rows, "scale": float(there.abs().max()), "agree": agree, "answers": len(rows)}
