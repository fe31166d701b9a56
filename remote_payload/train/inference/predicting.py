"""Predicts every row of files of any size: each once, in order, whatever ends the process on the way.

Memory is bounded by a window of rows. A window is predicted as a whole and is then on disk (``unfinished.py``); windows follow from the
files alone, so a prediction that was killed goes on at the next one and gives the same file. Several ranks take windows in turn.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from remote_payload.settings.predict import PredictSettings
from remote_payload.train.data.records import Record, find_files
from remote_payload.train.distributed import World
from remote_payload.train.errors import InputError
from remote_payload.train.evaluation.generation import sampling_of
from remote_payload.train.inference.asking import answers, prompt_of, prompt_tokens, told_to
from remote_payload.train.inference.rows import SUFFIXES, Row, Window, windows
from remote_payload.train.inference.scores import probabilities, tokens_of
from remote_payload.train.inference.target import Target
from remote_payload.train.inference.unfinished import Done, PartWriter, Totals, Unfinished
from remote_payload.train.inference.written import (
    ERROR,
    as_lines,
    check_output,
    classified,
    write_csv,
    write_parquet,
)

WINDOW_ROWS = {"classifier": 2048, "causal_lm": 64}  # few enough that little is predicted again after a kill


@dataclass(frozen=True)
class Progressed:
    """How far it is: ``done`` of ``total`` bytes of input; ``rows`` predicted by this process in ``seconds``."""

    done: int
    total: int
    rows: int
    seconds: float


@dataclass(frozen=True)
class Predicted:
    """What the complete file holds, and what this attempt did of it: ``predicted`` rows in ``seconds``."""

    totals: Totals
    predicted: int
    seconds: float


Tell = Callable[[Progressed], None]


def input_files(settings: PredictSettings) -> list[str]:
    """The files that are predicted, in order. Raises InputError for a name that matches none."""
    return find_files(settings.input, "input", SUFFIXES)


def predict_files(
    target: Target, settings: PredictSettings, world: World, tell: Tell = lambda progress: None
) -> Predicted:
    """Writes ``settings.output``. Raises InputError for files, rows and fields that cannot be used, with file and line, and OSError
    when the disk is full; what was predicted until then is kept for the next attempt."""
    target = told_to(target, settings.answering)
    output, files = Path(settings.output), input_files(settings)
    check_output(output, settings.keep, target)
    unfinished = Unfinished(output)
    with unfinished.begun(_about(target, settings, files)) if world.main else nullcontext():
        return _predict_files(target, settings, world, tell, files, unfinished)


def _predict_files(
    target: Target, settings: PredictSettings, world: World, tell: Tell, files: list[str], unfinished: Unfinished
) -> Predicted:
    world.barrier()
    done = unfinished.done()
    writer = PartWriter(unfinished.folder, world.rank)
    total, started, rows = sum(map(os.path.getsize, files)), time.perf_counter(), 0
    try:
        for window in windows(files, WINDOW_ROWS[target.kind]):
            if window.number not in done and window.number % world.size == world.rank:
                made, lines = predict_window(target, settings, window)
                writer.add(made, lines)
                rows += made.rows
            tell(Progressed(window.done, total, rows, time.perf_counter() - started))
    finally:
        writer.close()
    world.barrier()
    found = Predicted(unfinished.totals(), int(world.sum(rows)[0]), time.perf_counter() - started)
    if world.main:
        _complete(unfinished, settings.keep, target)
    world.barrier()
    return found


def predict_window(target: Target, settings: PredictSettings, window: Window) -> tuple[Done, bytes]:
    """The rows of a window as JSON Lines, and what to note of them. Raises InputError at a bad row unless those are marked."""
    found: list[dict[str, Any]] = [{} for _ in window.rows]
    ready: list[int] = []
    texts: list[str] = []
    for index, row in enumerate(window.rows):
        try:
            record = row.record()
            found[index] = {name: _kept(record, name) for name in settings.keep}
            texts.append(_text(target, settings, record))
            ready.append(index)
        except InputError as error:
            _bad(found, index, error, settings)
    ask = _classify if target.kind == "classifier" else _answer
    counts: Counter[str] = Counter()
    cut = 0
    for index, made, was_cut in zip(ready, *ask(target, settings, texts, window), strict=True):
        if made is None:
            _bad(found, index, InputError(f"{_place(window.rows[index])}: the text has no tokens"), settings)
            continue
        found[index] |= made
        cut += was_cut
        if "prediction" in made:
            counts[str(made["prediction"])] += 1
    rows = [{"file": row.file, "line": row.line, **fields} for row, fields in zip(window.rows, found, strict=True)]
    lines = as_lines(rows)
    bad = sum(ERROR in row for row in rows)
    return Done(window.number, len(rows), len(lines), bad, cut, dict(counts)), lines


def check_rows(settings: PredictSettings, target_kind: str) -> tuple[int, list[str]]:
    """How many rows the input has, and what is wrong with those that cannot be read; the model is not needed."""
    problems: list[str] = []
    rows = 0
    for window in windows(input_files(settings), WINDOW_ROWS[target_kind]):
        for row in window.rows:
            rows += 1
            try:
                record = row.record()
                for name in settings.keep:
                    _kept(record, name)
                if target_kind == "classifier" or settings.field:
                    record.field(settings.field or "text", (str, list) if target_kind == "causal_lm" else str)
            except InputError as error:
                problems.append(str(error))
    return rows, problems


def _text(target: Target, settings: PredictSettings, record: Record) -> str:
    if target.kind == "causal_lm":
        return prompt_of(target, record, settings.field)
    text: str = record.field(settings.field or "text")
    return text


def _kept(record: Record, name: str) -> Any:
    if name not in record.value:
        record.field(name)  # raises
    return record.value[name]


def _bad(found: list[dict[str, Any]], index: int, error: InputError, settings: PredictSettings) -> None:
    if settings.bad_rows == "stop":
        raise error
    found[index] |= {ERROR: str(error)}


def _place(row: Row) -> str:
    return f"{row.file}:{row.line}"


Made = tuple[
    list[dict[str, Any] | None], list[bool]
]  # of each text the fields of its row, None without tokens; and whether it was cut


def _classify(target: Target, settings: PredictSettings, texts: Sequence[str], window: Window) -> Made:
    tokens = tokens_of(target, texts)
    there = [index for index, ids in enumerate(tokens.ids) if ids]
    scored = probabilities(target, [tokens.ids[index] for index in there]).tolist()
    made: list[dict[str, Any] | None] = [None] * len(texts)
    for index, row in zip(there, scored, strict=True):
        made[index] = classified(target, row)
    return made, tokens.cut


def _answer(target: Target, settings: PredictSettings, texts: Sequence[str], window: Window) -> Made:
    prompts = [prompt_tokens(target, text) for text in texts]
    there = [index for index, ids in enumerate(prompts) if ids]
    sampling = sampling_of(settings.answering, settings.seed + window.number * WINDOW_ROWS["causal_lm"])
    made: list[dict[str, Any] | None] = [None] * len(texts)
    if there:
        for index, each in zip(there, answers(target, [prompts[index] for index in there], sampling), strict=True):
            made[index] = {"answer": each.text, "tokens": len(each.ids), "ended": each.ended}
    return made, [False] * len(texts)


def _about(target: Target, settings: PredictSettings, files: Sequence[str]) -> dict[str, Any]:
    """What makes two predictions the same. Files are compared by size and time, as make does. After a bad row ended one, it may go on with
    bad rows marked."""
    inputs = [{"file": file, "size": os.stat(file).st_size, "mtime_ns": os.stat(file).st_mtime_ns} for file in files]
    told = {name: value for name, value in asdict(settings).items() if name not in ("input", "output", "bad_rows")}
    return {
        "format": 1, "target": target.identity, "kind": target.kind, "dtype": str(target.dtype), "input": inputs, "settings": told,
    }  # fmt: skip


def _complete(unfinished: Unfinished, keep: Sequence[str], target: Target) -> None:
    """Joins the parts of all ranks in order, in the output's form, and gives it its name."""
    made = unfinished.folder / f"complete{unfinished.output.suffix}"
    single = unfinished.single()
    if unfinished.output.suffix == ".csv":
        write_csv(unfinished.in_order(), made, keep, target)
    elif unfinished.output.suffix == ".parquet":
        write_parquet(unfinished.in_order(), made, keep, target)
    elif single is not None:
        made = single
    else:
        with made.open("wb") as file:
            file.writelines(unfinished.in_order())
    unfinished.finish(made)
