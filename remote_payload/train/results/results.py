"""What a classify run leaves behind: the best model complete with card and reference predictions, and the record of the run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from remote_payload.forecast.architecture import Architecture
from remote_payload.forecast.forecast import TrainingShape, forecast_memory
from remote_payload.train.data.facts import Side
from remote_payload.train.data.labelled import LabelledTexts, Tokenised
from remote_payload.train.download import BaseModel
from remote_payload.train.files import write_json, write_text
from remote_payload.train.folders import recover_folder
from remote_payload.train.loop.best import Weights, best_weights, described_by, holds, model_folder, remark
from remote_payload.train.loop.checkpoint import load_weights
from remote_payload.train.loop.signals import Clock
from remote_payload.train.loop.task import Outcome, Progress
from remote_payload.train.model.classifier import Classifier, save_classifier
from remote_payload.train.results.card import dataset_name, hub_metadata, render_card
from remote_payload.train.results.provenance import write_metadata
from remote_payload.train.results.smoke import write_classifier_smoke
from remote_payload.train.run import Run

USAGE = """
import torch
from remote_payload.train.model.classifier import load_classifier  # pip install gpurun[smoke]

model, tokenizer = load_classifier("models/best"{base}, device="cpu")
batch = tokenizer(["Permission is hereby granted …"], truncation=True, max_length={max_length}, return_tensors="pt")
with torch.no_grad():
    label = {labels}[model(batch["input_ids"], batch["attention_mask"]).argmax(-1).item()]
"""


class ClassifierResults:
    """Writes ``models/best`` each time an evaluation is the best so far; the folder is whole at any moment."""

    def __init__(
        self, run: Run, model: Classifier, tokenizer: Any, base: BaseModel, data: LabelledTexts, sides: list[Tokenised]
    ) -> None:
        self.run, self.model, self.tokenizer, self.base, self.data, self.sides = (
            run,
            model,
            tokenizer,
            base,
            data,
            sides,
        )
        self.settings = run.settings
        if run.world.main:
            recover_folder(run.best)

    def keep_best(self, metrics: dict[str, float], progress: Progress) -> None:
        """Saves the model as it is now; the reference predictions come from loading it again."""
        self.save(progress, Weights(progress.evaluations[-1], None))

    def save(self, progress: Progress, weights: Weights, outcome: Outcome | None = None) -> None:
        """``models/best``, from the model as it is, which holds ``weights``."""
        if self.run.world.main:
            about = {"labels": self.data.labels, "max_length": self.settings.max_length}
            texts = [example.text for example in evenly(self.data.validation, self.settings.smoke_rows)]
            with model_folder(self.run, outcome) as folder:
                save_classifier(self.model, self.tokenizer, folder, self.base, about)
                self.describe(folder, progress, weights, outcome)
                write_classifier_smoke(folder, self.base.path, texts, self.run.world.device)
        self.run.world.barrier()

    def describe(self, folder: Path, progress: Progress, weights: Weights, outcome: Outcome | None) -> None:
        """Everything beside the weights that says which they are; replaced as files, since they may be links."""
        entry, note = weights.entry, {"note": weights.note} if weights.note else {}
        write_json(
            folder / "metrics.json", {"epoch": entry["epoch"], "step": entry["step"], **entry["metrics"], **note}
        )
        about = json.loads((folder / "gpurun.json").read_text(encoding="utf-8"))
        write_json(folder / "gpurun.json", {**about, **described_by(weights, outcome)})
        write_text(folder / "README.md", self.card(progress, weights, outcome))

    def finish(self, outcome: Outcome) -> None:
        """The card again with the numbers of the whole run, and the record."""
        progress = outcome.progress
        with self.run.phase("results"):
            weights = best_weights(self.run, progress)
            if weights:
                self.settle(outcome, weights)
        self.write_record(outcome, weights)
        if weights is None:
            return self.run.log("no model yet: nothing was evaluated before the stop")
        shown = "  ".join(f"{name} {value:.4f}" for name, value in weights.entry["metrics"].items())
        self.run.log(f"best model: step {weights.step}, epoch {weights.entry['epoch']:.2f}: {shown}")
        if weights.note:
            self.run.telemetry.flag("best_lost", weights.note)

    def settle(self, outcome: Outcome, weights: Weights) -> None:
        """``models/best`` as it is, where it holds these weights; written again where it does not, since a disk was full."""
        if self.run.world.broadcast(self.run.world.main and holds(self.run.best, weights.entry)):
            if self.run.world.main:
                with model_folder(self.run, outcome) as folder:
                    shutil.copytree(self.run.best, folder, copy_function=os.link, dirs_exist_ok=True)
                    (folder / "manifest.json").unlink()  # a link: never written to in place
                    self.describe(folder, outcome.progress, weights, outcome)
            return
        if weights.place:
            load_weights(weights.place, self.model)
        self.save(outcome.progress, weights, outcome)

    def finish_stopped(self, outcome: Outcome, clock: Clock) -> None:
        """What fits into the grace of a stop: the record first, then the model with its card; it was saved when it was the best."""
        self.write_record(outcome, None)
        self.finish(outcome)

    def write_record(self, outcome: Outcome, weights: Weights | None) -> None:
        """``training_metadata.json``."""
        progress = outcome.progress
        write_metadata(
            self.run, self.model, outcome,
            base=self.base.as_dict(),
            data=[*self.data.files, *self.side_facts()],
            results={
                "best": best_entry(progress),
                "last": next(iter(progress.evaluations[-1:]), None),
                "model": described_by(weights, outcome) if weights else None,
            },
            memory_predicted=self.predicted_memory(outcome),
        )  # fmt: skip

    def side_facts(self) -> list[Side]:
        sides = zip(("train", "validation"), self.sides, strict=True)
        return [Side(name, {"rows": len(s.ids), "tokens": sum(s.lengths), "texts_cut": s.cut}) for name, s in sides]

    def predicted_memory(self, outcome: Outcome) -> dict[str, Any] | None:
        """The forecast that ``gpurun check`` makes, with the micro-batch that ran; None for a family without formula."""
        settings, encoder = self.settings, self.model.encoder
        half = self.run.world.device.type == "cuda" and settings.precision != "fp32"
        lora = settings.lora
        targets = tuple(sorted(encoder.peft_config["default"].target_modules)) if lora.rank else "all-linear"
        try:
            shape = TrainingShape(
                micro_batch=outcome.progress.micro, length=min(settings.max_length, max(self.sides[0].lengths)),
                weights="bfloat16" if half and lora.rank else "float32", autocast=half, lora_rank=lora.rank, lora_targets=targets,
                lora_dropout=lora.dropout, checkpoint_activations=settings.batch.activation_checkpointing,
                language_head=False, masked=True,
            )  # fmt: skip
            forecast = forecast_memory(Architecture.from_config(encoder.config.to_dict()), shape)
            return forecast.as_dict()
        except (ValueError, KeyError):
            return None

    def card(self, progress: Progress, weights: Weights, outcome: Outcome | None = None) -> str:
        settings, name = self.settings, str(self.run.job.get("name") or self.run.recipe)
        best = weights.entry
        adapter = settings.lora.rank > 0
        public = self.base.id if self.base.on_the_hub else None
        metadata = hub_metadata(
            base_model=public, adapter=adapter, licence=self.base.licence, task="text-classification",
            tags=["text-classification", *(["lora"] if adapter else [])], name=name, dataset=dataset_name(settings),
            metrics=best["metrics"],
        )  # fmt: skip
        how = f"LoRA of rank {settings.lora.rank}" if adapter else "full fine-tuning"
        local = (
            f', base_path="{self.base.name}"' if adapter and not self.base.on_the_hub else ""
        )  # wherever it lies now
        return render_card(
            title=name,
            summary=f"A text classifier with the classes {', '.join(map(str, self.data.labels))}: `{self.base.name}` with {how}, "
            "the mean of its token vectors, and one linear layer in fp32.",
            usage=USAGE.format(base=local, max_length=settings.max_length, labels=self.data.labels),
            metadata=metadata,
            metric=settings.evaluation.metric,
            higher_is_better=self.run.higher_is_better,
            best=best,
            history=progress.evaluations,
            data=self.data_lines(),
            training=self.training_lines(progress, outcome),
            note=remark(weights, outcome),
        )

    def data_lines(self) -> list[str]:
        lines = []
        for side in self.side_facts():
            count = side.counts
            cut = f", {count['texts_cut']} cut at {self.settings.max_length}" if count["texts_cut"] else ""
            lines.append(f"{side.name}: {count['rows']:,} texts, {count['tokens']:,} tokens{cut}")
        counts = zip(self.data.labels, self.data.counts(), strict=True)
        return [*lines, "training texts of each class: " + ", ".join(f"{label}: {count:,}" for label, count in counts)]

    def training_lines(self, progress: Progress, outcome: Outcome | None) -> dict[str, Any]:
        settings, world = self.settings, self.run.world
        lines: dict[str, Any] = {
            "learning rate": f"{settings.optimizer.learning_rate:g}, {settings.schedule.name}, warm-up {settings.schedule.warmup:g}",
            "effective batch": f"{settings.batch.size} (micro-batch {progress.micro}, {world.size} device(s))",
            "class weights": settings.class_weights,
            "steps": progress.step,
            "seed": settings.seed,
        }
        if outcome:
            lines["time"] = (
                f"{outcome.seconds:,.0f} s, {outcome.tokens_per_second:,.0f} tokens/s, ended: {outcome.reason}"
            )
            if outcome.mfu:
                lines["MFU"] = f"{outcome.mfu:.1%}"
            if outcome.peak_memory:
                lines["GPU memory"] = f"{outcome.peak_memory / 2**30:.1f} GiB"
        return lines


def best_entry(progress: Progress) -> dict[str, Any] | None:
    """The evaluation that selected the model."""
    return next((entry for entry in progress.evaluations if entry["step"] == progress.best_step), None)


def evenly(items: Sequence[Any], count: int) -> list[Any]:
    """Up to ``count`` items, spread over the whole sequence."""
    taken = min(count, len(items))
    return [items[index * len(items) // taken] for index in range(taken)]
