"""What a prediction of files can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Literal, Optional

from remote_payload.settings.evaluate import ModelToMeasure
from remote_payload.settings.setting import group, required, setting


@dataclass
class Answering:
    """How a language model answers."""

    max_new_tokens: int = setting(256, "Longest answer, in tokens.", ge=1)
    temperature: float = setting(0.0, "0 takes the most probable token each time; higher is more varied.", ge=0)
    top_p: float = setting(1.0, "Sample among the most probable tokens that make up this share.", gt=0, le=1)
    repetition_penalty: float = setting(1.0, "Above 1 makes tokens that are already in the answer less probable.", gt=0)
    seed: int = setting(0, "The same seed gives the same answers.", ge=0)
    system_prompt: Optional[str] = setting(None, "A system message to ask with, other than the one of training.")


@dataclass
class PredictSettings:
    """A classifier's scores or a language model's answers for each row of the input files."""

    input: List[str] = required("JSON Lines, CSV or parquet files, folders of them or globs; in this order.")
    output: str = required("The file to write: .jsonl, .csv or .parquet.")
    field: Optional[str] = setting(
        None, "The field to predict: by itself text, or for a language model messages or prompt."
    )
    keep: List[str] = setting([], "Fields of the input that are written beside each prediction.", unique=True)
    bad_rows: Literal["stop", "mark"] = setting(
        "stop", "A row that cannot be read or lacks the field ends the command, or is written with the reason as error."
    )
    answering: Answering = group(Answering, "How a language model answers.")


@dataclass
class PredictJob:
    """The same as a run on a box; the output is one of its reports."""

    model: ModelToMeasure = required("The model.")
    files: PredictSettings = required("The files and how they are predicted.")
    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", "The device.")
