"""Settings of the ``classify`` recipe: a text classifier on a pretrained encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Literal, Optional, Union

from remote_payload.settings.setting import group, required, setting
from remote_payload.settings.training import Batch, Checkpoint, Evaluation, Lora, Optimizer, Publish, Schedule

METRICS = {
    "loss": False,
    "accuracy": True,
    "macro_f1": True,
    "weighted_f1": True,
    "macro_precision": True,
    "macro_recall": True,
    "binary_f1_{binary_threshold}": True,
}


@dataclass
class ClassifySettings:
    """An encoder with mean pooling and a linear head, trained with LoRA or in full."""

    model: str = required(
        "The encoder: a model id on the Hub, or a folder (relative to the job's code).",
        examples=["google/embeddinggemma-300m"],
        kind="model",
    )
    train: str = required(
        "Training data: a JSON Lines or parquet file, or a folder of them.", examples=["data/batches"], kind="data"
    )
    revision: Optional[str] = setting(None, "Branch, tag or commit of the model.")
    adapter: Optional[str] = setting(
        None,
        "The adapter to start from, instead of a new one: a folder as peft saves it, whoever trained it, or run:ID for models/best "
        "of an earlier run. It brings its own rank and layers, so lora is not read.",
        examples=["adapters/mine", "run:brie-20260102-142030-7f3a"],
        kind="adapter",
    )
    validation: Optional[str] = setting(
        None, "Validation data, like train; without it part of train is held out.", kind="data"
    )
    validation_share: float = setting(
        0.2, "Share of the examples (or groups) held out when there is no validation data.", gt=0, lt=1
    )
    text_field: str = setting("text", "The field that holds the text.")
    label_field: str = setting("label", "The field that holds the class.")
    group_field: Optional[str] = setting(
        None, "Examples with the same value here never fall on both sides of the split."
    )
    labels: Optional[List[Union[int, str]]] = setting(
        None, "All classes, in order; without it those found in the training data, sorted.", unique=True
    )
    max_length: int = setting(512, "Tokens of a text; longer ones are truncated, and counted.", ge=8)
    class_weights: Literal["none", "inverse_frequency"] = setting(
        "none", "Weight of each class in the loss; inverse frequency has mean 1."
    )
    binary_threshold: Optional[int] = setting(
        None, "Also report binary_f1_N: the class is a number, positive from N on."
    )
    lora: Lora = group(Lora, "Adapters on the encoder.")
    epochs: float = setting(3.0, "Passes over the training data.", gt=0)
    max_steps: Optional[int] = setting(None, "Stop after so many optimizer steps, whatever the value of epochs.", ge=1)
    seed: int = setting(0, "Of the split, the order of the examples, initialisation and dropout.", ge=0)
    precision: Literal["auto", "bf16", "fp32"] = setting(
        "auto", "Of the encoder; auto is bf16 where the GPU has it. Head and loss are fp32 always."
    )
    resume: Optional[str] = setting(None, "Checkpoint to resume from: auto, a name or a path.")
    smoke_rows: int = setting(50, "Validation texts whose predictions travel with the model, for the smoke test.", ge=1)
    optimizer: Optimizer = group(Optimizer, "The optimizer.")
    schedule: Schedule = group(Schedule, "The learning rate over time.")
    batch: Batch = group(Batch, "Batch sizes and memory.")
    checkpoint: Checkpoint = group(Checkpoint, "What can be resumed.")
    evaluation: Evaluation = group(Evaluation, "Evaluation and model selection.")
    publish: Publish = group(Publish, "Publishing the finished model on the Hub.")
