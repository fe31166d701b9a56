"""Settings of the ``pretrain`` recipe: a GPT-2 from scratch, with its own tokenizer, from a corpus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Literal, Optional, Union

from remote_payload.settings.setting import group, required, setting
from remote_payload.settings.training import Batch, Checkpoint, Evaluation, Optimizer, Publish, Schedule

METRICS = {"loss": False, "perplexity": False, "token_accuracy": True}


@dataclass
class Shape:
    """The GPT-2 that is built. 12 layers of width 768 are its small one, 24 of 1024 its medium one."""

    layers: int = setting(12, "Transformer blocks.", ge=1)
    width: int = setting(768, "Width of the residual stream; a multiple of heads.", ge=8)
    heads: int = setting(12, "Attention heads.", ge=1)
    dropout: float = setting(0.0, "Dropout in blocks and embeddings.", ge=0, lt=1)


@dataclass
class PretrainSettings:
    """Tokenizer, pre-tokenised rows, and a language model trained on them from nothing."""

    corpus: Union[str, List[str]] = required(
        "Text, JSON Lines or parquet files, or folders of them.", kind="data", examples=["data/corpus.txt"]
    )
    boundary: Literal["paragraph", "line", "file"] = setting(
        "paragraph", "Where a document of a text file ends: at a blank line, at every line, or with the file."
    )
    text_field: str = setting("text", "The field that holds the text, in JSON Lines and parquet.")
    tokenizer: Optional[str] = setting(
        None, "A tokenizer to use: a model of the Hub or a folder. Without it one is trained.", kind="model"
    )
    vocabulary: int = setting(30_000, "Tokens of the tokenizer that is trained.", ge=300)
    max_length: int = setting(512, "Tokens of a row, and positions of the model.", ge=8)
    validation_share: float = setting(0.01, "Share of the documents held out.", gt=0, lt=1)
    validation_rows: Optional[int] = setting(2000, "At most so many held-out rows are evaluated; null takes all.", ge=1)
    tokens: Literal["auto", "fresh", "cached"] = setting(
        "auto", "Pre-tokenised rows: used again where they fit (auto), made anew (fresh), or demanded (cached)."
    )
    model: Shape = group(Shape, "The model.")
    epochs: float = setting(1.0, "Passes over the corpus.", gt=0)
    max_steps: Optional[int] = setting(None, "Stop after so many optimizer steps, whatever the value of epochs.", ge=1)
    seed: int = setting(0, "Of initialisation, the order of the rows, the split and dropout.", ge=0)
    precision: Literal["auto", "bf16", "fp32"] = setting(
        "auto", "Of the matrix products; auto is bf16 where the GPU has it. Weights and loss are fp32 always."
    )
    expected_loss: List[List[float]] = setting(
        [],
        "Pairs of a share of the run and the validation loss it should have by then; worse raises a flag.",
        examples=[[[0.25, 6.0], [1.0, 3.0]]],
    )
    prompts: List[str] = setting([], "Continued by the finished model, for reports/samples.jsonl.")
    resume: Optional[str] = setting(None, "Checkpoint to resume from: auto, a name or a path.")
    smoke_rows: int = setting(8, "Prompts whose predictions travel with the model, for the smoke test.", ge=1)
    publish: Publish = group(Publish, "Publishing the finished model on the Hub.")
    optimizer: Optimizer = group(Optimizer, "The optimizer.")
    schedule: Schedule = group(Schedule, "The learning rate over time.")
    batch: Batch = group(Batch, "Batch sizes and memory.")
    checkpoint: Checkpoint = group(Checkpoint, "What can be resumed.")
    evaluation: Evaluation = group(Evaluation, "Evaluation and model selection.")
