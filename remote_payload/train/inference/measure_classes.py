"""What is measured of a classifier: its confusion matrix and what follows from it, the loss, and every text's probabilities."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from remote_payload.recipes.evaluated import Confusion
from remote_payload.settings.evaluate import EvaluateSettings
from remote_payload.train.data.labelled import Label
from remote_payload.train.errors import InputError
from remote_payload.train.evaluation.metrics import binary_f1, classification_metrics, confusion
from remote_payload.train.inference.found import Found, Metrics, Row, Say, by_set, flattened
from remote_payload.train.inference.questions import Item
from remote_payload.train.inference.scores import probabilities, tokens_of
from remote_payload.train.inference.target import Target

POOL = 4096  # texts
LEAST = torch.finfo(torch.float32).tiny  # a probability of 0 in fp32 has no logarithm


def measure_classes(target: Target, items: Sequence[Item], settings: EvaluateSettings, say: Say) -> Found:
    """Predicts every text. Raises InputError for a text that is missing, and for a class that the model does not know."""
    texts = [str(item.record.field(settings.text_field)) for item in items]
    truth = [_class_of(item, target, settings) for item in items]
    ids = tokens_of(target, texts).ids
    started = time.perf_counter()
    scores = _probabilities(target, ids, say)
    seconds = time.perf_counter() - started
    rows = [_row(*each, target) for each in zip(items, texts, truth, scores, strict=True)]
    known = [place for place, label in enumerate(truth) if label is not None]
    if not known:
        say("the data has no classes: only the predictions are kept")
    metrics, matrix = _over(scores, truth, known, target)
    latency = {"texts_per_second": len(texts) / max(seconds, 1e-9), **_one_at_a_time(target, ids, settings)}
    sets = by_set(rows, range(len(rows)), lambda part: _over(scores, truth, _both(part, known), target)[0])
    counts = [[int(count) for count in line] for line in matrix.tolist()]
    found = Confusion([str(label) for label in target.labels], counts) if known else None
    return Found(rows, {**metrics, **flattened({"latency": latency})}, sets, found)


def _probabilities(target: Target, ids: Sequence[Sequence[int]], say: Say) -> Tensor:
    """``[texts, classes]``, a few thousand texts at a time, so that progress can be told."""
    parts = []
    for start in range(0, len(ids), POOL):
        parts.append(probabilities(target, ids[start : start + POOL]))
        say(f"{min(start + POOL, len(ids)):,} of {len(ids):,} texts")
    return torch.cat(parts)


def _class_of(item: Item, target: Target, settings: EvaluateSettings) -> int | None:
    """The place of the example's class among the model's; None where it names none."""
    if settings.label_field not in item.record.value:
        return None
    given = item.record.field(settings.label_field, (int, str, float))
    label: Label = int(given) if isinstance(given, float) and given.is_integer() else given
    if label in target.labels:
        return target.labels.index(label)
    names = [str(each) for each in target.labels]
    for name in (str(label), f"LABEL_{label}"):  # the second is what transformers calls classes without names
        if name in names:
            return names.index(name)
    known = ", ".join(repr(each)[:40] for each in target.labels[:12]) + (" …" if len(target.labels) > 12 else "")
    raise InputError(f"{item.record.place}: {repr(label)[:80]} is none of the classes of {target.name}: {known}")


def _row(item: Item, text: str, truth: int | None, scores: Tensor, target: Target) -> Row:
    best = int(scores.argmax())
    line = {
        "text": text,
        "label": None if truth is None else target.labels[truth],
        "answer": target.labels[best],
        "scores": {str(label): round(score, 6) for label, score in zip(target.labels, scores.tolist(), strict=True)},
    }
    own: Metrics = {}
    if truth is not None:
        own = {"accuracy": float(best == truth), "loss": float(_losses(scores[truth]))}
    return Row(item.id, item.set, line, own)


def _over(scores: Tensor, truth: Sequence[int | None], places: Sequence[int], target: Target) -> tuple[Metrics, Tensor]:
    """The metrics of the texts at ``places``, all of which name a class, and their confusion matrix."""
    classes = len(target.labels)
    if not places:
        return {}, torch.zeros(classes, classes, dtype=torch.long)
    wanted = torch.tensor([truth[place] for place in places])
    mine = scores[list(places)]
    matrix = confusion(wanted, mine.argmax(-1), classes)
    metrics = {"loss": float(_losses(mine.gather(1, wanted[:, None])).mean()), **classification_metrics(matrix)}
    if target.threshold is not None:
        positive = [isinstance(label, int) and label >= target.threshold for label in target.labels]
        metrics[f"binary_f1_{target.threshold}"] = binary_f1(matrix, positive)
    return metrics, matrix


def _losses(right: Tensor) -> Tensor:
    """Cross-entropy in nats from the probabilities of the right classes."""
    return -right.clamp(min=LEAST).log()


def _both(places: Sequence[int], known: Sequence[int]) -> list[int]:
    return sorted(set(places) & set(known))


def _one_at_a_time(target: Target, ids: Sequence[Sequence[int]], settings: EvaluateSettings) -> Metrics:
    """Milliseconds for a text by itself, of the first few."""
    taken = []
    for row in ids[: settings.latency_examples]:
        started = time.perf_counter()
        probabilities(target, [row])  # ends with a copy to the host
        taken.append(1000 * (time.perf_counter() - started))
    return {"median_ms": sorted(taken)[len(taken) // 2], "max_ms": max(taken)} if taken else {}
