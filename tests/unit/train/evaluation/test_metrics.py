from __future__ import annotations

import pytest
import torch
from sklearn import metrics as reference

from remote_payload.train.evaluation.metrics import (
    binary_f1,
    classification_metrics,
    confusion,
    inverse_frequency_weights,
)


def predictions(seed: int, classes: int, never: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, classes, (200,), generator=generator)
    noise = torch.randint(0, classes, (200,), generator=generator)
    predicted = torch.where(torch.rand(200, generator=generator) < 0.6, truth, noise)
    if never is not None:  # a class that is never predicted: its precision is 0 / 0
        predicted[predicted == never] = 0
    return truth, predicted


@pytest.mark.parametrize(("seed", "classes", "never"), [(0, 2, None), (1, 6, None), (2, 6, 4), (3, 3, 2)])
def test_every_metric_is_what_scikit_learn_says(seed: int, classes: int, never: int | None) -> None:
    truth, predicted = predictions(seed, classes, never)
    ours = classification_metrics(confusion(truth, predicted, classes))
    options = {"labels": range(classes), "zero_division": 0}
    theirs = {
        "accuracy": reference.accuracy_score(truth, predicted),
        "macro_f1": reference.f1_score(truth, predicted, average="macro", **options),
        "weighted_f1": reference.f1_score(truth, predicted, average="weighted", **options),
        "macro_precision": reference.precision_score(truth, predicted, average="macro", **options),
        "macro_recall": reference.recall_score(truth, predicted, average="macro", **options),
    }
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_a_class_that_is_neither_there_nor_predicted_does_not_cost_a_perfect_model_its_score() -> None:
    truth = torch.tensor([0, 0, 2, 3])
    perfect = classification_metrics(confusion(truth, truth, 6))
    assert perfect == dict.fromkeys(perfect, 1.0)
    predicted = torch.tensor([0, 2, 2, 5])  # 3 is never predicted, 5 is never true, 1 and 4 are neither
    ours = classification_metrics(confusion(truth, predicted, 6))
    theirs = reference.precision_recall_fscore_support(truth, predicted, average="macro", zero_division=0)
    assert [ours[name] for name in ("macro_precision", "macro_recall", "macro_f1")] == pytest.approx(theirs[:3])


@pytest.mark.parametrize("threshold", [1, 3, 5])
def test_f1_at_a_threshold_is_what_scikit_learn_says(threshold: int) -> None:
    truth, predicted = predictions(7, 6, None)
    ours = binary_f1(confusion(truth, predicted, 6), [score >= threshold for score in range(6)])
    assert ours == pytest.approx(reference.f1_score(truth >= threshold, predicted >= threshold), abs=1e-12)


def test_f1_without_a_single_hit_is_zero() -> None:
    assert binary_f1(confusion(torch.tensor([0, 1]), torch.tensor([1, 0]), 2), [False, True]) == 0.0


def test_a_confusion_matrix_adds_up_over_batches() -> None:
    truth, predicted = predictions(9, 4, None)
    parts = sum(confusion(truth[at : at + 33], predicted[at : at + 33], 4) for at in range(0, 200, 33))
    assert torch.equal(parts, confusion(truth, predicted, 4))


def test_class_weights_of_the_fineweb_legal_counts_are_the_published_ones() -> None:
    weights = inverse_frequency_weights([2002, 607, 465, 623, 1102, 401])
    assert [round(weight, 3) for weight in weights.tolist()] == [0.322, 1.062, 1.387, 1.035, 0.585, 1.608]
    assert float(weights.mean()) == pytest.approx(1.0)
