"""Classification metrics from a confusion matrix, which can be summed over batches and ranks; scores could not.

Definitions are those of scikit-learn with ``zero_division=0``: a class without predictions has precision 0, a class without examples
recall 0. A macro average is over the classes that occur among truth or predictions, as in scikit-learn without ``labels``: otherwise a
class without an example in a small validation side would lower the score of a perfect model. docs/metrics.md has the formulas.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def confusion(truth: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Counts, int64 [classes, classes]: rows are the true classes, columns the predicted ones."""
    cells = truth * classes + predicted
    # Not bincount: its size depends on its input, so the host would wait for the device.
    return cells.new_zeros(classes * classes).scatter_add_(0, cells, torch.ones_like(cells)).reshape(classes, classes)


def classification_metrics(matrix: Tensor) -> dict[str, float]:
    """accuracy, macro_f1, weighted_f1, macro_precision and macro_recall of a confusion matrix."""
    return metrics_of_counts(class_counts(matrix))


def class_counts(matrix: Tensor) -> Tensor:
    """``[3, classes]`` in fp64 of a confusion matrix: hits, texts and predictions of each class. A thousand classes are 3,000 numbers
    then, not a million."""
    return torch.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)]).double()


def metrics_of_counts(counts: Tensor) -> dict[str, float]:
    """The metrics of ``classification_metrics``, none of which needs more than ``class_counts``."""
    hits, truth, predicted = counts
    precision, recall = _ratio(hits, predicted), _ratio(hits, truth)
    f1 = _ratio(2 * hits, truth + predicted)
    there = (truth + predicted) > 0
    return {
        "accuracy": float(hits.sum() / truth.sum()),
        "macro_f1": float(f1[there].mean()),
        "weighted_f1": float((f1 * truth).sum() / truth.sum()),
        "macro_precision": float(precision[there].mean()),
        "macro_recall": float(recall[there].mean()),
    }


def binary_f1(matrix: Tensor, positive: Sequence[bool]) -> float:
    """F1 of "one of the positive classes" against the rest, as for scores at or over a threshold. ``positive``: one bool a class."""
    mask = torch.tensor(positive)
    hits = float(matrix[mask][:, mask].sum())
    missed, false = float(matrix[mask][:, ~mask].sum()), float(matrix[~mask][:, mask].sum())
    return 2 * hits / (2 * hits + missed + false) if hits else 0.0


def inverse_frequency_weights(counts: Sequence[int]) -> Tensor:
    """Weights proportional to 1 / count with mean 1 over the classes, fp32."""
    inverse = 1 / torch.tensor(counts, dtype=torch.float64)
    return (inverse * len(counts) / inverse.sum()).float()


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator > 0, numerator / denominator.clamp(min=1), 0.0)
