"""What a prediction of files can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Literal, Optional

from remote_payload.settings.evaluate import ModelToMeasure
from remote_payload.settings.generation import Answering
from remote_payload.settings.setting import group, required, setting


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
    seed: int = setting(0, "The same seed gives the same answers.", ge=0)


@dataclass
class PredictJob:
    """The same as a run on a box; the output is one of its reports."""

    model: ModelToMeasure = required("The model.")
    files: PredictSettings = required("The files and how they are predicted.")
    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", "The device.")
