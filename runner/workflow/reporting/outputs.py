"""What the fetched outputs of a run tell: the data it read, what it ran on, samples of the finished model.

A box wrote these files: what is not as it should be is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from runner.domain.comparison.settings import flatten
from runner.domain.quantities import format_size
from runner.domain.run import Run
from runner.domain.terminal import clean, without_controls
from runner.files import read_json
from runner.report.blocks import Block, Facts, Note, Table
from runner.workflow.comparing.facts import place_of_run
from runner.workflow.comparing.record import FILE, TrainingRecord
from runner.workflow.reporting.words import in_words

FILES = 60  # of the data
FIGURES = 60
SAMPLES = 8
LONGEST = 2000  # characters of an answer
LARGEST = 1 << 20  # bytes of a line of answers


def record_of(run: Run) -> dict[str, object]:
    """``training_metadata.json``; empty where it is not here."""
    return read_json(run.outputs_here / FILE)


def data_blocks(run: Run, record: Mapping[str, object]) -> list[Block]:
    """The files that were read and what each side of the data counts; without a record, the digests under which data was sent."""
    listed = record.get("data")
    entries = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    files = [each for each in entries if "path" in each]
    sides = [each for each in entries if "side" in each]
    found: list[Block] = []
    if sides:
        names = list(dict.fromkeys(name for each in sides for name in each))
        head = [str(name).replace("_", " ") for name in names]
        found.append(Table(head, [[in_words(each[name]) if name in each else "" for name in names] for each in sides]))
    if files:
        rows = [
            [
                in_words(each["path"]),
                in_words(each.get("rows", "")),
                _size(each.get("bytes")),
                in_words(each.get("sha256", "")),
            ]
            for each in files[:FILES]
        ]
        more = f"{len(files) - FILES} more files." if len(files) > FILES else ""
        found.append(Table(["file", "rows", "size", "sha256"], rows, about=more))
    if not found and run.data:
        found.append(Facts([(name, key) for name, key in run.data.items()]))
    return found


def _size(value: object) -> str:
    return format_size(value) if type(value) is int else ""


def environment(run: Run, record: Mapping[str, object]) -> Facts:
    """Versions, machine, base model; the digest of the code that was sent."""
    found: dict[str, object] = {**place_of_run(run), "code": run.code, **TrainingRecord(run.outputs_here).environment}
    for name in ("parameters", "batch"):
        part = record.get(name)
        found[name] = part if isinstance(part, dict) else None
    return Facts([(name.replace("_", " "), in_words(value)) for name, value in flatten(found).items()])


def beside_base(run: Run) -> list[Block]:
    """What was measured on held-out data of the finished model and of what it was made from, side by side."""
    held_out = read_json(run.outputs_here / "reports" / "evaluation.json").get("held_out")
    models = {
        clean(name, 60): figures
        for name, figures in (held_out.items() if isinstance(held_out, dict) else ())
        if isinstance(figures, dict)
    }
    metrics = list(dict.fromkeys(metric for figures in models.values() for metric in figures))[:FIGURES]
    rows = [
        [clean(metric, 100), *(in_words(each[metric]) if metric in each else "–" for each in models.values())]
        for metric in metrics
    ]
    return [Table(["held-out data", *models], rows)] if rows else []


def samples(run: Run) -> list[Block]:
    """Answers of the finished model, beside those of its base where the run wrote them."""
    for name, about in (("answers.jsonl", "Held-out prompts"), ("samples.jsonl", "Prompts of the job")):
        rows = _rows(run.outputs_here / "reports" / name)
        if rows:
            names = list(dict.fromkeys(column for row in rows for column in row))
            cells = [[_text(row.get(column)) for column in names] for row in rows]
            return [Note(f"{about}, from reports/{name}."), Table([_text(each) for each in names], cells)]
    return []


def _rows(file: Path) -> list[dict[str, object]]:
    found = []
    try:
        with file.open("rb") as lines:
            for line in islice(iter(lambda: lines.readline(LARGEST), b""), SAMPLES):
                row = json.loads(line)
                if isinstance(row, dict):
                    found.append(row)
    except (OSError, ValueError, RecursionError):
        pass
    return found


def _text(value: object) -> str:
    text = without_controls(value if isinstance(value, str) else in_words(value) if value is not None else "")
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
