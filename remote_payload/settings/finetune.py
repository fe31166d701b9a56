"""Settings of the ``finetune`` recipe: all weights of a causal language model, with many named evaluation sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Literal, Optional

from remote_payload.settings.setting import group, required, setting
from remote_payload.settings.training import Batch, Checkpoint, Evaluation, Optimizer, Publish, Schedule

# Each of them as the mean over all evaluation sets, or of one set alone: accuracy/birthdays.
METRICS = {
    "loss": False,
    "accuracy": True,
    "token_accuracy": True,
    "loss/<set>": False,
    "accuracy/<set>": True,
    "token_accuracy/<set>": True,
}


@dataclass
class FinetuneSettings:
    """A full fine-tune on a structured dataset: packed documents in, every evaluation set measured as it goes."""

    model: str = required(
        "The model: a model id on the Hub, or a folder of the job.", kind="model", examples=["allenai/OLMo-2-1124-7B"]
    )
    dataset: str = required(
        "The structured dataset: one JSON file with training documents and named evaluation sets.",
        kind="data",
        examples=["datasets/structured_dataset_death_dates_100_w_pretrain.json"],
    )
    revision: Optional[str] = setting(None, "Branch, tag or commit of the model.")
    max_length: int = setting(2048, "Tokens of a row that documents are packed into; longer ones are truncated.", ge=8)
    epochs: float = setting(1.0, "Passes over the documents.", gt=0)
    max_steps: Optional[int] = setting(None, "Stop after so many optimizer steps, whatever the value of epochs.", ge=1)
    seed: int = setting(0, "Of the order of the documents and dropout.", ge=0)
    precision: Literal["auto", "bf16", "fp32"] = setting(
        "auto", "Of the matrix products; auto is bf16 where the GPU has it. The loss is fp32 always."
    )
    weights: Literal["fp32", "bf16"] = setting(
        "fp32",
        "How weights, gradients and optimizer are kept: fp32 takes 16 bytes a parameter, bf16 half of it; updates are then "
        "rounded at random, so that they are right on average.",
    )
    shard: bool = setting(
        False, "Shard weights, gradients and optimizer over all GPUs (FSDP2), for a model that does not fit one."
    )
    prompts: List[str] = setting([], "Continued by the finished model, for reports/samples.jsonl.")
    resume: Optional[str] = setting(None, "Checkpoint to resume from: auto, a name or a path.")
    smoke_rows: int = setting(8, "Prompts whose predictions travel with the model, for the smoke test.", ge=1)
    optimizer: Optimizer = group(Optimizer, "The optimizer.")
    schedule: Schedule = group(Schedule, "The learning rate over time.")
    batch: Batch = group(Batch, "Batch sizes and memory.")
    checkpoint: Checkpoint = group(Checkpoint, "What can be resumed, and what is kept.")
    evaluation: Evaluation = group(Evaluation, "Evaluation and model selection.")
    publish: Publish = group(Publish, "Publishing the finished model on the Hub.")
