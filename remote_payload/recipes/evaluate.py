"""Recipe ``evaluate``: measures models on data and trains nothing.

It writes ``evaluation.json`` (all figures) and ``examples/`` (each example with each model's answer). ``gpurun evaluate`` runs it on this
machine, in a process without a token and network, and with ``--host`` on a box.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from remote_payload.recipes.evaluated import SUMMARY, Column, Evaluation
from remote_payload.settings.evaluate import Asking, EvaluateSettings, ModelToMeasure
from remote_payload.train.data.records import read_json
from remote_payload.train.download import local_model
from remote_payload.train.errors import InputError, UnusableModel
from remote_payload.train.evaluation.json_schemas import check_schema, read_schema
from remote_payload.train.files import sha256_of, write_json, write_json_lines
from remote_payload.train.inference.footprint import forget_peak, peak_bytes
from remote_payload.train.inference.found import Found, Say, mean_over_sets
from remote_payload.train.inference.measure_answers import Judge, measure_answers, measure_losses
from remote_payload.train.inference.measure_classes import measure_classes
from remote_payload.train.inference.questions import Item, Question, data_files, form_of, questions_for, read_items
from remote_payload.train.inference.target import Target, load_target
from remote_payload.train.loop.micro_batch import release_memory
from remote_payload.train.model.causal import base_of
from remote_payload.train.model.model_facts import Prompting
from remote_payload.train.model.precision import resolve_precision
from remote_payload.train.run import Run, launch

EXAMPLES = "examples"
MOST_TOKENS = 8192  # of an example in the loss, where neither settings nor training say how many
SAID_EVERY = 1.0  # seconds


def main(run: Run[Any]) -> None:
    """The evaluation as a run on a box: models of the Hub are downloaded there, and the files are the run's reports."""
    settings: EvaluateSettings = run.settings
    with run.phase("model"):
        settings = replace(settings, models=[with_folders(run, model) for model in settings.models])
    with run.phase("evaluation"):
        found = evaluate(settings, run.reports, Seldom(run.log))
    for column in found.columns:
        run.telemetry.event("eval", name=column.name, step=0, metrics=column.metrics)
        run.log(f"{column.name}: " + "  ".join(f"{name} {value:.4g}" for name, value in column.metrics.items()))


def with_folders(run: Run[Any], model: ModelToMeasure) -> ModelToMeasure:
    """The model with its folder here, and that of its base. Raises InputError naming the model."""
    folder, base = model.folder, model.base
    try:
        if not Path(folder).is_dir():
            folder = local_model(run, folder, model.revision).path
        if base is not None and not Path(base).is_dir():
            base = local_model(run, base, model.base_revision).path
    except UnusableModel as error:
        raise InputError(f"{model.name}: {error.reason}") from None
    return replace(model, folder=folder, base=base)


class Seldom:
    """Puts progress into a log: of lines about the same column one in ten seconds."""

    EVERY = 10.0  # seconds

    def __init__(self, log: Say) -> None:
        self._log, self._about, self._last = log, "", 0.0

    def __call__(self, text: str) -> None:
        about = text.partition(": ")[0]
        if about != self._about or time.monotonic() - self._last > self.EVERY:
            self._about, self._last = about, time.monotonic()
            self._log(text)


def evaluate(settings: EvaluateSettings, outputs: Path, say: Say) -> Evaluation:
    """Measures each model in turn and writes the files. Raises InputError for data or a model that cannot be used."""
    items = read_items(settings)
    work = Work(settings, items, schemas_of(settings, items), device_of(settings), outputs, say)
    (outputs / EXAMPLES).mkdir(parents=True, exist_ok=True)
    for model in settings.models:
        work.measure(model)
    told = asdict(replace(settings, models=[]))
    found = Evaluation(Path(settings.data).name, sha256_of_data(settings), len(items), work.columns, told)
    write_json(outputs / SUMMARY, found.as_json())
    return found


@dataclass
class Work:
    """The evaluation under way: what is the same for all models, and the columns that are done."""

    settings: EvaluateSettings
    items: list[Item]
    schemas: dict[str, Any] | None
    device: torch.device
    outputs: Path
    say: Say
    columns: list[Column] = field(default_factory=list)
    prompting: Prompting | None = None  # how the first model that was trained with gpurun is asked
    bases: set[str] = field(default_factory=set)  # what was measured already: a base and its prompts

    def measure(self, model: ModelToMeasure) -> None:
        """The columns of one model, and of its base where that is wanted."""
        self.say(f"loading {model.name}")
        forget_peak(self.device)
        dtype = dtype_of(self.settings, self.device)
        started = time.perf_counter()
        target = load_target(model.folder, name=model.name, base_path=model.base, device=self.device, dtype=dtype)
        loaded = {"memory/load_seconds": time.perf_counter() - started}
        if target.kind == "classifier":
            self._keep(
                target, "", False, measure_classes(target, self.items, self.settings, self._about(target)), loaded
            )
        else:
            self._measure_language_model(target, model, loaded)
        del target
        release_memory()

    def _measure_language_model(self, target: Target, model: ModelToMeasure, loaded: dict[str, float]) -> None:
        own = target.prompting if "recipe" in target.prompting else None
        self.prompting = self.prompting or own
        self._ask(target, own or self.prompting, loaded, base=False)
        if not self.settings.base:
            return
        if target.holds_base:
            with target.model.disable_adapter():
                self._ask(target, own or self.prompting, {}, base=True, identity=str(model.base))
        elif model.base:
            target.model.to("cpu")
            release_memory()
            base = load_target(
                model.folder,
                name=model.name,
                base_path=model.base,
                device=self.device,
                dtype=target.dtype,
                ask_base=True,
            )
            self._ask(base, own or self.prompting, {}, base=True, identity=str(model.base))

    def _ask(
        self, target: Target, prompting: Prompting | None, loaded: dict[str, float], *, base: bool, identity: str = ""
    ) -> None:
        """A column for each way to ask. A base that several models share is measured once, if it gets the same prompts."""
        judge, losses = Judge(self.schemas), {}
        before: list[Question] = []
        for asking in self.settings.asking or [Asking()]:
            questions = self._questions(target, prompting, asking)
            seen = f"{identity}\0{asking.name}\0{digest_of(questions)}"
            if base and seen in self.bases:
                continue
            self.bases.add(seen)
            say = self._about(target, base, asking.name)
            if [each.document for each in before] != [each.document for each in questions]:
                losses, before = measure_losses(target.model, questions, say), questions
            with saying_so(target, say):
                ends = target.end_tokens
                found = measure_answers(
                    target.model, target.tokenizer, questions, ends, asking, self.settings, judge, losses
                )
            self._keep(target, asking.name, base, found, loaded)

    def _questions(self, target: Target, prompting: Prompting | None, asking: Asking) -> list[Question]:
        form = form_of(self.settings, prompting, target.tokenizer, self.items)
        if asking.system_prompt is not None:
            form = replace(form, system_prompt=asking.system_prompt)
        limit = self.settings.max_length or (prompting or {}).get("max_length") or positions_of(target.model)
        return questions_for(self.items, target.tokenizer, form, self.settings, limit)

    def _about(self, target: Target, base: bool = False, asking: str = "") -> Say:
        return lambda text: self.say(f"{column_name(target.name, base, asking)}: {text}")

    def _keep(self, target: Target, asking: str, base: bool, found: Found, more: dict[str, float]) -> None:
        """Adds the column, and writes its examples."""
        name = column_name(target.name, base, asking)
        slug = re.sub(r"[^A-Za-z0-9._=-]+", "-", name).strip("-.")[:80] or "model"
        rows = f"{EXAMPLES}/{len(self.columns) + 1:02d}-{slug}.jsonl"
        write_json_lines(self.outputs / rows, (row.as_json() for row in found.rows))
        memory = {"memory/peak_bytes": float(peak_bytes(self.device)), **more}
        dtype = str(target.dtype).removeprefix("torch.")
        self.columns.append(
            Column(
                name, target.name, base, asking, target.kind, self.device.type, dtype, rows,
                {**found.metrics, **mean_over_sets(found.sets), **memory}, found.sets, found.confusion,
            )
        )  # fmt: skip


def column_name(model: str, base: bool, asking: str) -> str:
    """What a column is called."""
    return ("base of " if base else "") + model + (f" {asking}" if asking else "")


def digest_of(questions: Sequence[Question]) -> str:
    """The same for questions with the same prompts."""
    return hashlib.sha256("\0".join(question.prompt for question in questions).encode()).hexdigest()


def schemas_of(settings: EvaluateSettings, items: Sequence[Item]) -> dict[str, Any] | None:
    """Each example's JSON Schema by its id, None where it has none; None altogether where answers are not JSON."""
    if not settings.json_answers:
        if settings.schema or settings.schema_field:
            raise InputError("a schema is given, but the answers are not declared to be JSON (--json-answers)")
        return None
    if settings.schema:
        schema = read_json(settings.schema)
        check_schema(schema, settings.schema)
        return {item.id: schema for item in items}
    name = settings.schema_field
    return {item.id: read_schema(item.record, name) if name else None for item in items}


def sha256_of_data(settings: EvaluateSettings) -> str:
    """The sha256 of the file; of several files that of their digests, in order."""
    found = [sha256_of(Path(file)) for file in data_files(settings)]
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def device_of(settings: EvaluateSettings) -> torch.device:
    """The device that is asked for, or the best one. Raises InputError for one that is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if settings.device == "auto":
        return torch.device(next(name for name, found in there.items() if found))
    if not there[settings.device]:
        raise InputError(f"there is no {settings.device} on this machine; use --device auto, or --device cpu")
    return torch.device(settings.device)


def dtype_of(settings: EvaluateSettings, device: torch.device) -> torch.dtype:
    """The dtype of the weights."""
    if settings.dtype == "auto":
        return resolve_precision("auto", device)
    found: torch.dtype = getattr(torch, settings.dtype)
    return found


def positions_of(network: Any) -> int:
    """How many tokens the model can read at once, at most MOST_TOKENS."""
    config = base_of(network).config
    told = getattr(config, "n_positions", None) or getattr(config, "max_position_embeddings", None)
    return min(told or MOST_TOKENS, MOST_TOKENS)


@contextmanager
def saying_so(target: Target, say: Say) -> Iterator[None]:
    """Says about every second that answers are being written: a long one takes longer than a process may be silent."""
    last = time.monotonic()
    tokens = 0

    def report(*_: object) -> None:
        nonlocal last, tokens
        tokens += 1
        if time.monotonic() - last > SAID_EVERY:
            last = time.monotonic()
            say(f"answering, {tokens:,} steps")

    hook = base_of(target.model).register_forward_hook(report)
    try:
        yield
    finally:
        hook.remove()


if __name__ == "__main__":
    launch("evaluate", main)
