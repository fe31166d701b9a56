"""The form of predictions: what stands in a row, and how a complete file is written as JSON Lines, CSV or parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from remote_payload.train.data.chat import as_text
from remote_payload.train.errors import InputError
from remote_payload.train.inference.target import Target

FORMS = (".jsonl", ".csv", ".parquet")
PLACE = ("file", "line")
ANSWER = ("answer", "tokens", "ended")
ERROR = "error"


def classified(target: Target, probabilities: Sequence[float]) -> dict[str, Any]:
    """The fields of a classifier's row: ``prediction``, ``probability`` (its own), ``probabilities`` of all classes by name. Where the
    job had a threshold, ``positive`` says whether the predicted class is at least that number, as the metric ``binary_f1`` counts, and
    ``positive_probability`` is the sum over such classes."""
    best = max(range(len(probabilities)), key=lambda index: probabilities[index])
    found: dict[str, Any] = {"prediction": target.labels[best], "probability": round(probabilities[best], 6)}
    if target.threshold is not None:
        positive = [int(label) >= target.threshold for label in target.labels]
        found["positive"] = positive[best]
        total = sum(share for share, counts in zip(probabilities, positive, strict=True) if counts)
        found["positive_probability"] = round(total, 6)
    pairs = zip(target.labels, probabilities, strict=True)
    return {**found, "probabilities": {str(label): round(share, 6) for label, share in pairs}}


def check_output(output: Path, keep: Sequence[str], target: Target) -> None:
    """Raises InputError for an output of another form, and for fields to keep that would have the name of a predicted one."""
    if output.suffix not in FORMS:
        raise InputError(f"{output}: it is written as {', '.join(FORMS)}, by the end of its name")
    own = {*PLACE, *_columns(target), "probabilities", ERROR}
    if taken := sorted(own & set(keep)):
        raise InputError(f"keep: {', '.join(taken)} is the name of a predicted field; rename it in the input")


def write_csv(rows: Iterator[bytes], path: Path, keep: Sequence[str], target: Target) -> None:
    """Writes the file with one line a row. What is no text is JSON, and what a row does not have is empty."""
    names = [*PLACE, *keep, *_columns(target), ERROR]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for row in _flat(rows):
            writer.writerow(["" if (value := row.get(name)) is None else as_text(value) for name in names])


def write_parquet(rows: Iterator[bytes], path: Path, keep: Sequence[str], target: Target) -> None:
    """Writes the file, a row group a window. Kept fields are text (JSON where they were none), so that the columns have one type."""
    import pyarrow
    import pyarrow.parquet

    kinds = {"line": pyarrow.int64(), "tokens": pyarrow.int64(), "ended": pyarrow.bool_(), "positive": pyarrow.bool_()}
    numbers = all(isinstance(label, int) for label in target.labels)

    def kind(name: str) -> Any:
        if name in keep or name in ("file", "answer", ERROR):
            return pyarrow.string()
        if name == "prediction":
            return pyarrow.int64() if numbers else pyarrow.string()
        return kinds.get(name, pyarrow.float64())

    names = [*PLACE, *keep, *_columns(target), ERROR]
    schema = pyarrow.schema([(name, kind(name)) for name in names])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for window in rows:
            flat = [
                {name: as_text(value) if name in keep and value is not None else value for name, value in row.items()}
                for row in _flat(iter([window]))
            ]
            writer.write_table(pyarrow.Table.from_pylist(flat, schema))


def as_lines(rows: Sequence[dict[str, Any]]) -> bytes:
    """Rows as JSON Lines."""
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def _columns(target: Target) -> list[str]:
    if target.kind == "causal_lm":
        return list(ANSWER)
    binary = ["positive", "positive_probability"] if target.threshold is not None else []
    return ["prediction", "probability", *binary, *(f"probability_{label}" for label in target.labels)]


def _flat(windows: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    """Each row, its ``probabilities`` as fields ``probability_CLASS``."""
    for window in windows:
        for line in io.BytesIO(window):
            row: dict[str, Any] = json.loads(line)
            shares = row.pop("probabilities", {})
            yield {**row, **{f"probability_{label}": share for label, share in shares.items()}}
