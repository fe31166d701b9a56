"""Recipe ``classify``: a text classifier on a pretrained encoder, with LoRA or in full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from remote_payload.settings.classify import ClassifySettings
from remote_payload.train.data.batching import epoch_steps, split_by_padding
from remote_payload.train.data.labelled import LabelledTexts, Tokenised, read_labelled_texts, tokenise
from remote_payload.train.distributed import World
from remote_payload.train.download import local_model
from remote_payload.train.errors import InputError
from remote_payload.train.evaluation.metrics import (
    binary_f1,
    class_counts,
    classification_metrics,
    confusion,
    inverse_frequency_weights,
    metrics_of_counts,
)
from remote_payload.train.loop.flops import flops_per_token
from remote_payload.train.loop.loop import train
from remote_payload.train.loop.overlap import flag_repetitions
from remote_payload.train.loop.step import MicroBatch
from remote_payload.train.model.classifier import Classifier, build_classifier, load_tokenizer, longest_input
from remote_payload.train.model.precision import autocast, checkpoint_activations, resolve_precision
from remote_payload.train.model.start_adapter import check_rank, read_start, start_classifier
from remote_payload.train.results.classifier_results import ClassifierResults
from remote_payload.train.results.publish import publish
from remote_payload.train.run import Run, launch
from remote_payload.train.state import rng
from remote_payload.train.tasks.sums import add_up

# What starting one more micro-batch costs, in tokens that could be computed in the same time.
OVERHEAD = {"cuda": 4096, "cpu": 32}


def main(run: Run[ClassifySettings]) -> None:
    settings, world = run.settings, run.world
    compute = resolve_precision(settings.precision, world.device)

    with run.phase("data"):
        data = read_labelled_texts(settings)
        check_threshold(settings, data)
        check_rank(settings.adapter, settings.lora.rank)
        base = local_model(run, settings.model, settings.revision)
        start = read_start(run, settings.adapter, base) if settings.adapter else None
        tokenizer = load_tokenizer(base.path)
        sides = [tokenise(side, tokenizer, settings.max_length) for side in (data.train, data.validation)]
        describe(run, data, sides)
        texts = {"train": data.train, "validation": data.validation}
        flag_repetitions(run, **{name: [each.text for each in side] for name, side in texts.items()})

    with run.phase("model"):
        rng.seed_everything(settings.seed)
        if start:
            model = start_classifier(run, start, base, data.labels, compute)
        else:
            model = build_classifier(base, len(data.labels), settings.lora, compute)
        check_length(model, settings.max_length)
        if settings.batch.activation_checkpointing:
            checkpoint_activations(model.encoder)
        model.to(world.device)

    task = ClassifyTask(settings, world, data, sides, tokenizer.pad_token_id, compute)
    results = ClassifierResults(run, model, tokenizer, base, data, sides)
    outcome = train(
        run, model, task,
        flops_per_token=flops_per_token(model.encoder, model.head.weight, sides[0].lengths, counted=len(sides[0].lengths)),
        extras=results.describe_checkpoint,
        on_best=results.keep_best,
        on_stop=results.finish_stopped,
    )  # fmt: skip
    results.finish(outcome)
    publish(run)


class ClassLoss(NamedTuple):
    """Of the texts of a micro-batch: the summed loss (differentiable), what to divide it by, and the logits ``[rows, classes]``."""

    sum: Tensor
    count: Tensor
    logits: Tensor


def loss(model: nn.Module, batch: MicroBatch, weights: Tensor | None = None) -> ClassLoss:
    """Cross-entropy over the classes, each text weighted by its class; without ``weights`` ``[classes]`` all count the same."""
    labels = batch.tensors["labels"]
    logits = model(batch.tensors["ids"], batch.tensors["mask"], batch.tensors["padded"])
    total = nn.functional.cross_entropy(logits, labels, weight=weights, reduction="sum")
    count = weights[labels].sum() if weights is not None else logits.new_full((), len(labels))
    return ClassLoss(total, count, logits)


class ClassifyTask:
    """Weighted cross-entropy over classes, on length-grouped micro-batches of a token budget."""

    fixed_shapes = False

    def __init__(
        self,
        settings: ClassifySettings,
        world: World,
        data: LabelledTexts,
        sides: list[Tokenised],
        pad: int,
        compute: torch.dtype,
    ):
        self.settings, self.world, self.pad, self.autocast = settings, world, pad, autocast(world.device, compute)
        self.train, self.validation = sides
        self.labels = data.labels
        self.scores_width = 3 * len(data.labels)
        self.longest = max(self.train.lengths)
        self.steps_per_epoch = -(-len(self.train.ids) // settings.batch.size)
        weights = class_weights(data, settings.class_weights)
        self.weights = weights.to(world.device) if weights is not None else None

    def steps(self, epoch: int, start: int) -> Iterator[list[int]]:
        yield from epoch_steps(self.train.lengths, self.settings.batch.size, self.settings.seed, epoch)[start:]

    def micro_batches(self, step: list[int], micro_batch_rows: int) -> list[MicroBatch]:
        return self.padded(self.train, step, micro_batch_rows)

    def heaviest(self, micro_batch_rows: int) -> MicroBatch:
        return self.collate(self.train, [self.train.lengths.index(self.longest)] * micro_batch_rows)

    def loss(self, model: nn.Module, batch: MicroBatch) -> ClassLoss:
        """The loss of a micro-batch on this rank's device, matrix products in the task's dtype."""
        with self.autocast:
            return loss(model, batch, self.weights)

    def scores(self, batch: MicroBatch, loss: ClassLoss) -> Tensor:
        """Hits, texts and predictions of each class."""
        return class_counts(confusion(batch.tensors["labels"], loss.logits.argmax(-1), len(self.labels))).flatten()

    def figures(self, scores: list[float]) -> dict[str, float]:
        return metrics_of_counts(torch.tensor(scores, dtype=torch.float64).reshape(3, -1))

    def padded(self, side: Tokenised, indices: list[int], micro_batch_rows: int) -> list[MicroBatch]:
        """This rank's share of the texts, longest first, in pieces none of which is over ``micro_batch_rows`` of full length."""
        mine = self.world.share(sorted(indices, key=lambda index: -len(side.ids[index])))
        lengths = [len(side.ids[index]) for index in mine]
        pieces = split_by_padding(lengths, micro_batch_rows * self.longest, OVERHEAD.get(self.world.device.type, 32))
        return [self.collate(side, mine[start:end]) for start, end in pieces]

    def collate(self, side: Tokenised, indices: list[int]) -> MicroBatch:
        """These texts padded to the longest of them: ``ids`` and ``mask`` ``[rows, length]``, ``labels`` ``[rows]``; is any ``padded``?"""
        rows = [torch.tensor(side.ids[index]) for index in indices]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.pad)
        lengths = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        labels = torch.tensor([side.labels[index] for index in indices])
        tokens = int(lengths.sum())
        return MicroBatch({"ids": ids, "mask": mask, "padded": tokens < ids.numel(), "labels": labels}, tokens)

    def evaluate(self, model: nn.Module, micro_batch_rows: int) -> dict[str, float]:
        """The metrics of the validation side; only the confusion matrix, the loss and its weight are kept."""
        classes, texts = len(self.labels), list(range(len(self.validation.ids)))
        batches = (batch.to(self.world.device) for batch in self.padded(self.validation, texts, micro_batch_rows))
        sums = add_up((self.sums(model, batch) for batch in batches), classes * classes + 2, self.world.device)
        *cells, loss_sum, count = self.world.sum_on_device((), sums).tolist()
        total = torch.tensor(cells, dtype=torch.long).reshape(classes, classes)
        metrics = {"loss": loss_sum / count, **classification_metrics(total)}
        threshold = self.settings.binary_threshold
        if threshold is not None:
            metrics[f"binary_f1_{threshold}"] = binary_f1(
                total, [isinstance(label, int) and label >= threshold for label in self.labels]
            )
        return metrics

    def sums(self, model: nn.Module, batch: MicroBatch) -> Tensor:
        """``[classes² + 2]``: the confusion matrix row by row, the summed loss, its weight."""
        found = self.loss(model, batch)
        matrix = confusion(batch.tensors["labels"], found.logits.argmax(-1), len(self.labels))
        return torch.cat([matrix.flatten().double(), torch.stack([found.sum.double(), found.count.double()])])


def class_weights(data: LabelledTexts, wanted: str) -> Tensor | None:
    """Weights of the classes in the loss, from the training side. Raises InputError for a class that it lacks."""
    if wanted == "none":
        return None
    counts = data.counts()
    if 0 in counts:
        missing = data.labels[counts.index(0)]
        raise InputError(
            f"settings.class_weights: inverse_frequency, but no training example has the class {missing!r}"
        )
    return inverse_frequency_weights(counts)


def check_length(model: Classifier, max_length: int) -> None:
    """Raises InputError when texts may be longer than the encoder's positions."""
    limit = longest_input(model.encoder)
    if limit is not None and max_length > limit:
        raise InputError(f"settings.max_length: {max_length}, but this encoder has {limit} positions")


def check_threshold(settings: ClassifySettings, data: LabelledTexts) -> None:
    """Raises InputError for a threshold on classes that are not numbers."""
    if settings.binary_threshold is not None and not all(isinstance(label, int) for label in data.labels):
        raise InputError("settings.binary_threshold: the classes are not numbers")


def describe(run: Run[ClassifySettings], data: LabelledTexts, sides: list[Tokenised]) -> None:
    """Logs the size of the data and the classes."""
    for name, side in zip(("train", "validation"), sides, strict=True):
        run.log(
            f"{name}: {len(side.ids):,} texts, {sum(side.lengths):,} tokens, longest {max(side.lengths)}, {side.truncated} truncated"
        )
    weights = class_weights(data, run.settings.class_weights)
    for index, (label, count) in enumerate(zip(data.labels, data.counts(), strict=True)):
        weight = "" if weights is None else f", weight {weights[index]:.3f}"
        run.log(f"  class {label}: {count:,} in training{weight}")


if __name__ == "__main__":
    launch("classify", main)
