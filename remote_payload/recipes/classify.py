"""Recipe ``classify``: a text classifier on a pretrained encoder, with LoRA or in full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from remote_payload.train.data.batching import cut, epoch_steps
from remote_payload.train.data.labelled import LabelledTexts, Tokenised, read_labelled_texts, tokenise
from remote_payload.train.distributed import World
from remote_payload.train.download import local_model
from remote_payload.train.errors import InputError
from remote_payload.train.evaluation.metrics import (
    binary_f1,
    classification_metrics,
    confusion,
    inverse_frequency_weights,
)
from remote_payload.train.loop import rng
from remote_payload.train.loop.flops import flops_per_token
from remote_payload.train.loop.loop import train
from remote_payload.train.loop.overlap import flag_repetitions
from remote_payload.train.loop.task import MicroBatch
from remote_payload.train.model.classifier import build_classifier, load_tokenizer, longest_input
from remote_payload.train.model.precision import autocast, checkpoint_activations, resolve_precision
from remote_payload.train.results.results import ClassifierResults
from remote_payload.train.run import Run, launch

OVERHEAD = {"cuda": 4096, "cpu": 32}  # tokens that could be computed while one more micro-batch gets going


def main(run: Run) -> None:
    settings, world = run.settings, run.world
    compute = resolve_precision(settings.precision, world.device)

    with run.phase("data"):
        data = read_labelled_texts(settings)
        check_threshold(settings, data)
        base = local_model(run, settings.model, settings.revision)
        tokenizer = load_tokenizer(base.path)
        sides = [tokenise(side, tokenizer, settings.max_length) for side in (data.train, data.validation)]
        describe(run, data, sides)
        texts = {"train": data.train, "validation": data.validation}
        flag_repetitions(run, **{name: [each.text for each in side] for name, side in texts.items()})

    with run.phase("model"):
        rng.seed_everything(settings.seed)
        model = build_classifier(base, len(data.labels), settings.lora, compute)
        check_length(model, settings.max_length)
        if settings.batch.activation_checkpointing:
            checkpoint_activations(model.encoder)
        model.to(world.device)

    task = ClassifyTask(settings, world, data, sides, tokenizer.pad_token_id, compute)
    results = ClassifierResults(run, model, tokenizer, base, data, sides)
    outcome = train(
        run, model, task,
        flops_per_token=flops_per_token(model, model.encoder.config, task.mean_length, causal=False),
        on_best=results.keep_best,
        on_stop=results.finish_stopped,
    )  # fmt: skip
    results.finish(outcome)


class ClassifyTask:
    """Weighted cross-entropy over classes, on length-grouped micro-batches of a token budget."""

    fixed_shapes = False

    def __init__(
        self, settings: Any, world: World, data: LabelledTexts, sides: list[Tokenised], pad: int, compute: torch.dtype
    ):
        self.settings, self.world, self.pad, self.compute = settings, world, pad, compute
        self.train, self.validation = sides
        self.labels = data.labels
        self.longest = max(self.train.lengths)
        self.mean_length = sum(self.train.lengths) / len(self.train.lengths)
        self.steps_per_epoch = -(-len(self.train.ids) // settings.batch.size)
        weights = class_weights(data, settings.class_weights)
        self.weights = weights.to(world.device) if weights is not None else None

    def steps(self, epoch: int, start: int) -> Iterator[list[int]]:
        yield from epoch_steps(self.train.lengths, self.settings.batch.size, self.settings.seed, epoch)[start:]

    def micro_batches(self, step: list[int], size: int) -> list[MicroBatch]:
        return self.collate(self.train, step, size)

    def collate(self, side: Tokenised, indices: list[int], size: int) -> list[MicroBatch]:
        """This rank's share of the texts, longest first, cut so that none is over ``size`` rows of full length."""
        mine = self.world.share(sorted(indices, key=lambda index: -len(side.ids[index])))
        lengths = [len(side.ids[index]) for index in mine]
        cuts = cut(lengths, size * self.longest, OVERHEAD.get(self.world.device.type, 32))
        return [self.micro(side, mine[start:end]) for start, end in cuts]

    def micro(self, side: Tokenised, indices: list[int]) -> MicroBatch:
        rows = [torch.tensor(side.ids[index]) for index in indices]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.pad)
        lengths = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        labels = torch.tensor([side.labels[index] for index in indices])
        return MicroBatch({"ids": ids, "mask": mask, "labels": labels}, int(lengths.sum()))

    def heaviest(self, size: int) -> MicroBatch:
        return self.micro(self.train, [self.train.lengths.index(self.longest)] * size)

    def logits(self, model: nn.Module, micro: MicroBatch) -> Tensor:
        with autocast(self.world.device, self.compute):
            return model(micro.tensors["ids"], micro.tensors["mask"])

    def loss(self, model: nn.Module, micro: MicroBatch) -> tuple[Tensor, Tensor | float]:
        labels = micro.tensors["labels"]
        loss = nn.functional.cross_entropy(self.logits(model, micro), labels, weight=self.weights, reduction="sum")
        return loss, float(len(labels)) if self.weights is None else self.weights[labels].sum()

    def evaluate(self, model: nn.Module, size: int) -> dict[str, float]:
        """Only sums are kept, never scores: the confusion matrix, the loss and its weight."""
        classes = len(self.labels)
        matrix = torch.zeros(classes, classes, dtype=torch.long, device=self.world.device)
        sums = torch.zeros(2, dtype=torch.float64, device=self.world.device)
        for micro in self.collate(self.validation, list(range(len(self.validation.ids))), size):
            moved = micro.to(self.world.device)
            logits, labels = self.logits(model, moved), moved.tensors["labels"]
            matrix += confusion(labels, logits.argmax(-1), classes)
            weight = self.weights[labels].sum() if self.weights is not None else torch.tensor(float(len(labels)))
            loss = nn.functional.cross_entropy(logits, labels, weight=self.weights, reduction="sum")
            sums += torch.stack([loss.double(), weight.to(loss).double()])
        *cells, loss_sum, count = self.world.sum(*matrix.flatten().tolist(), *sums.tolist())
        total = torch.tensor(cells, dtype=torch.long).reshape(classes, classes)
        metrics = {"loss": loss_sum / count, **classification_metrics(total)}
        threshold = self.settings.binary_threshold
        if threshold is not None:
            metrics[f"binary_f1_{threshold}"] = binary_f1(total, [label >= threshold for label in self.labels])
        return metrics


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


def check_length(model: Any, max_length: int) -> None:
    """Raises InputError for texts that the encoder has no positions for."""
    limit = longest_input(model.encoder)
    if limit is not None and max_length > limit:
        raise InputError(f"settings.max_length: {max_length}, but this encoder has {limit} positions")


def check_threshold(settings: Any, data: LabelledTexts) -> None:
    """Raises InputError for a threshold on classes that are not numbers."""
    if settings.binary_threshold is not None and not all(isinstance(label, int) for label in data.labels):
        raise InputError("settings.binary_threshold: the classes are not numbers")


def describe(run: Run, data: LabelledTexts, sides: list[Tokenised]) -> None:
    """What the data looks like, in the log."""
    for name, side in zip(("train", "validation"), sides, strict=True):
        run.log(
            f"{name}: {len(side.ids):,} texts, {sum(side.lengths):,} tokens, longest {max(side.lengths)}, {side.cut} cut"
        )
    weights = class_weights(data, run.settings.class_weights)
    for index, (label, count) in enumerate(zip(data.labels, data.counts(), strict=True)):
        weight = "" if weights is None else f", weight {weights[index]:.3f}"
        run.log(f"  class {label}: {count:,} in training{weight}")


if __name__ == "__main__":
    launch("classify", main)
