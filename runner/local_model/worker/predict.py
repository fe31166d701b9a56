"""Classes, or embeddings, of texts: in padded batches of similar length, timed after a warm-up."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from runner.local_model.messages import Labelled, Measured, Predictions, Progress, RowDifference, Send, SmokeRequest
from runner.local_model.worker.device import synchronize
from runner.local_model.worker.reference import (
    check_finite,
    check_width,
    largest_difference,
    read_expected,
    read_inputs,
)

BUCKET = 64  # lengths are padded to multiples of it: Metal compiles, and CUDA tunes, for each new shape
BATCH_TOKENS = 4096
BATCH_ROWS = 16

Batch = tuple[list[int], int]  # rows, and the length they are padded to


def predict(
    request: SmokeRequest, model: nn.Module, tokenizer: PreTrainedTokenizerBase, device: str, send: Send
) -> Predictions:
    """How often each class was chosen, how fast, and how far from the box's logits."""
    longest = request.max_length
    rows = [tokenizer(row.text, truncation=True, max_length=longest)["input_ids"] for row in read_inputs(request)]
    batches = list(bucketed([len(row) for row in rows], longest))
    outputs: dict[int, Tensor] = {}
    with torch.inference_mode():
        for indices, width in _to_warm_up(batches, device):
            _forward(request, model, tokenizer, [rows[index] for index in indices], width, device)
        synchronize(device)
        began = time.perf_counter()
        for indices, width in batches:
            found = _forward(request, model, tokenizer, [rows[index] for index in indices], width, device)
            outputs.update(zip(indices, found.float().cpu(), strict=True))
            send(Progress(done=len(outputs), total=len(rows)))
        seconds = time.perf_counter() - began
    logits = torch.stack([outputs[index] for index in range(len(rows))])
    check_finite(logits, "this machine's predictions")
    if request.kind == "encoder":
        return Predictions(len(rows), seconds)
    counts = torch.bincount(logits.argmax(-1), minlength=logits.shape[-1]).tolist()
    return Predictions(
        len(rows),
        seconds,
        counts=tuple(counts),
        comparison=compare(request, logits),
        labelled=_labelled(request, model, logits),
    )


def logits_of(
    request: SmokeRequest, model: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> Tensor:
    """``[texts, classes]`` in fp32, one text at a time, on the CPU."""
    rows = [tokenizer(text, truncation=True, max_length=request.max_length)["input_ids"] for text in texts]
    with torch.inference_mode():
        found = [_forward(request, model, tokenizer, [row], len(row), "cpu") for row in rows]
    return torch.cat(found).float()


def _labelled(request: SmokeRequest, model: nn.Module, logits: Tensor) -> tuple[Labelled, ...]:
    """The class of each of the user's own texts; nothing where the texts are the box's or built in."""
    if request.inputs is None or request.expected is not None:
        return ()
    named = getattr(getattr(model, "config", None), "id2label", None) or {}
    classes = range(logits.shape[-1])
    labels = request.labels if len(request.labels) == len(classes) else [str(named.get(each, each)) for each in classes]
    best = logits.softmax(-1).max(-1)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return tuple(Labelled(labels[index], round(share, 6)) for index, share in pairs)


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
    """On a GPU, where shapes are compiled, a batch of each shape; on the CPU the smallest batch, which starts threads and takes memory."""
    if device == "cpu":
        return [batches[-1]]
    return list({(len(indices), width): (indices, width) for indices, width in batches}.values())


def _forward(
    request: SmokeRequest,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Sequence[int]],
    width: int,
    device: str,
) -> Tensor:
    """Logits ``[rows, classes]``; of an encoder the first token's vector ``[rows, hidden]``."""
    pad = tokenizer.pad_token_id or 0
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    output = model(input_ids=ids, attention_mask=mask)
    if request.kind == "encoder":
        return output.last_hidden_state[:, 0]
    return output if torch.is_tensor(output) else output.logits


def compare(request: SmokeRequest, logits: Tensor) -> Measured | None:
    """Each row compared with the box's; None where the box sent no predictions."""
    expected = read_expected(request, len(logits), "logits")
    if expected is None:
        return None
    there = expected["logits"]
    check_width(logits, there)
    classes = logits.shape[-1]
    labels = request.labels if len(request.labels) == classes else tuple(map(str, range(classes)))
    rows = tuple(_compare_row(here, wanted, labels) for here, wanted in zip(logits, there, strict=True))
    return Measured(rows, float(there.abs().max()), sum(row.gap is None for row in rows), len(rows))


def _compare_row(here: Tensor, there: Tensor, labels: Sequence[str]) -> RowDifference:
    chosen, wanted = int(here.argmax()), int(there.argmax())
    gap = float(here[chosen]) - float(here[wanted]) if chosen != wanted else None
    return RowDifference(largest_difference(here, there), gap, labels[chosen], labels[wanted])
