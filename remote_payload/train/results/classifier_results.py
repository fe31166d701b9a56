"""What a classify run leaves behind: the best model with its card and reference predictions, and the record of the run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from transformers import PreTrainedTokenizerBase

from remote_payload.settings.classify import ClassifySettings
from remote_payload.train.data.facts import Side
from remote_payload.train.data.labelled import LabelledTexts, Tokenised
from remote_payload.train.download import BaseModel
from remote_payload.train.files import write_text
from remote_payload.train.folders import MANIFEST, recover_folder
from remote_payload.train.model.classifier import Classifier, save_classifier
from remote_payload.train.model.model_facts import ModelFacts, read_model_facts, write_model_facts
from remote_payload.train.results.checkpoint_model import describe_classifier
from remote_payload.train.results.classifier_card import classifier_card
from remote_payload.train.results.classifier_smoke import write_classifier_smoke
from remote_payload.train.results.predicted_memory import predicted_memory
from remote_payload.train.results.record import write_record
from remote_payload.train.results.usage import classifier_usage
from remote_payload.train.run import Run
from remote_payload.train.state.best import (
    Weights,
    best_weights,
    holds,
    model_folder,
    weights_facts,
    write_metrics,
)
from remote_payload.train.state.checkpoint import load_weights
from remote_payload.train.state.grace import Clock
from remote_payload.train.state.progress import Outcome, Progress

T = TypeVar("T")


class ClassifierResults:
    """Writes ``models/best`` each time an evaluation is the best so far; the folder is complete at any moment.

    ``sides`` are the training and the validation side of ``data`` as tokens.
    """

    def __init__(
        self, run: Run[ClassifySettings], model: Classifier, tokenizer: PreTrainedTokenizerBase, base: BaseModel, data: LabelledTexts,
        sides: Sequence[Tokenised],
    ) -> None:  # fmt: skip
        self.run, self.model, self.tokenizer, self.base, self.data = run, model, tokenizer, base, data
        self.longest = max(sides[0].lengths)
        self.sides = [
            Side(name, {"rows": len(side.ids), "tokens": sum(side.lengths), "texts_cut": side.truncated})
            for name, side in zip(("train", "validation"), sides, strict=True)
        ]
        self.about: ModelFacts = {
            "labels": data.labels, "max_length": run.settings.max_length, "binary_threshold": run.settings.binary_threshold,
        }  # fmt: skip
        if run.world.main:
            recover_folder(run.best)

    def describe_checkpoint(self, folder: Path) -> None:
        """Adds what makes a checkpoint a classifier that can be loaded by itself."""
        describe_classifier(folder, self.model, self.tokenizer, self.base, self.about)

    def keep_best(self, metrics: dict[str, float], progress: Progress) -> None:
        """Saves the model as it is now; the reference predictions come from loading it again."""
        self.save(progress, Weights(progress.evaluations[-1], None))

    def save(self, progress: Progress, weights: Weights, outcome: Outcome | None = None) -> None:
        """Writes ``models/best`` from the model in memory, which has ``weights``."""
        if self.run.world.main:
            texts = [example.text for example in evenly(self.data.validation, self.run.settings.smoke_rows)]
            with model_folder(self.run, outcome) as folder:
                save_classifier(self.model, self.tokenizer, folder, self.base, self.about)
                self.describe(folder, progress, weights, outcome)
                write_classifier_smoke(folder, self.base.path, texts, self.run.world.device)
        self.run.world.barrier()

    def describe(self, folder: Path, progress: Progress, weights: Weights, outcome: Outcome | None) -> None:
        """Writes metrics.json, gpurun.json and the card, as new files: in ``folder`` they may be links to other files."""
        write_metrics(folder, weights, weights.entry["metrics"])
        write_model_facts(folder, {**read_model_facts(folder), **weights_facts(weights, outcome)})
        usage = classifier_usage(self.base, self.data.labels, self.run.settings.max_length, self.model)
        card = classifier_card(
            self.run, self.base, self.data, self.sides, progress, weights, self.model.lora_rank, usage, outcome
        )
        write_text(folder / "README.md", card)

    def finish(self, outcome: Outcome) -> None:
        """The card again with the figures of the whole run, and the record."""
        progress = outcome.progress
        with self.run.phase("results"):
            weights = best_weights(self.run, progress)
            if weights:
                self.finish_model(outcome, weights)
        self.write_record(outcome, weights)
        if weights is None:
            return self.run.log("no model yet: nothing was evaluated before the stop")
        shown = "  ".join(f"{name} {value:.4f}" for name, value in weights.entry["metrics"].items())
        self.run.log(f"best model: step {weights.step}, epoch {weights.entry['epoch']:.2f}: {shown}")
        if weights.note:
            self.run.telemetry.flag("best_lost", weights.note)

    def finish_model(self, outcome: Outcome, weights: Weights) -> None:
        """Gives ``models/best`` its final card. A folder that does not have these weights, since a disk was full, is written anew."""
        if self.run.world.broadcast(self.run.world.main and holds(self.run.best, weights.entry)):
            if self.run.world.main:
                with model_folder(self.run, outcome) as folder:
                    shutil.copytree(self.run.best, folder, copy_function=os.link, dirs_exist_ok=True)
                    (folder / MANIFEST).unlink()  # a link: never written to in place
                    self.describe(folder, outcome.progress, weights, outcome)
            return
        if weights.place:
            load_weights(weights.place, self.model)
        self.save(outcome.progress, weights, outcome)

    def finish_stopped(self, outcome: Outcome, clock: Clock) -> None:
        """The record first, since a stop may leave little time, then the card. The model was saved when it was the best."""
        self.write_record(outcome, None)
        self.finish(outcome)

    def write_record(self, outcome: Outcome, weights: Weights | None) -> None:
        """``training_metadata.json``."""
        length = min(self.run.settings.max_length, self.longest)
        write_record(
            self.run, self.model, outcome, weights,
            base=self.base,
            data=[*self.data.files, *self.sides],
            memory_predicted=predicted_memory(
                self.run, self.model.encoder, outcome, length, language_head=False, masked=True
            ),
        )  # fmt: skip


def evenly(items: Sequence[T], count: int) -> list[T]:
    """Up to ``count`` items, spread over the whole sequence."""
    taken = min(count, len(items))
    return [items[index * len(items) // taken] for index in range(taken)]
