"""Recipe ``sft``: a language model learns from conversations, or prompts with completions; the loss is on the answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from remote_payload.settings.sft import ANSWER_METRICS, JSON_METRICS, SftSettings
from remote_payload.train.data.chat import Example, Format, check_records, encode_examples, end_tokens, prompt_ids
from remote_payload.train.data.facts import DataFact, DataFile, Side
from remote_payload.train.data.records import Record, find_files, read_all, read_json, split
from remote_payload.train.download import BaseModel, local_model
from remote_payload.train.errors import InputError
from remote_payload.train.evaluation.answers import Expected, Questions, Report, ask
from remote_payload.train.evaluation.json_schemas import check_schema, read_schema
from remote_payload.train.loop.flops import flops_of_documents
from remote_payload.train.loop.loop import train
from remote_payload.train.loop.overlap import flag_repetitions
from remote_payload.train.loop.step import MicroBatch
from remote_payload.train.model.causal import CausalLoss, Network, TokenLoss
from remote_payload.train.model.causal_files import check_length, load_adapter, load_network, load_tokenizer
from remote_payload.train.model.greedy_decoding import SmokePrompt
from remote_payload.train.model.lora import add_lora
from remote_payload.train.model.model_facts import Prompting
from remote_payload.train.model.precision import checkpoint_activations, resolve_precision
from remote_payload.train.model.start_adapter import check_rank, read_start
from remote_payload.train.results.causal_results import CausalResults
from remote_payload.train.results.publish import publish
from remote_payload.train.run import Run, launch
from remote_payload.train.state import rng
from remote_payload.train.tasks.packed_task import PackedTask
from remote_payload.train.tasks.sums import LossFunction


def main(run: Run[SftSettings]) -> None:
    learn(run, loss)


def learn(run: Run[SftSettings], loss: LossFunction) -> None:
    """The recipe with any loss of a packed row of examples: a recipe of one's own may bring another one.

    ``run.settings`` has at least the fields of ``SftSettings``.
    """
    settings, world = run.settings, run.world
    compute = resolve_precision(settings.precision, world.device)
    form = Format(settings.messages_field, settings.prompt_template, settings.completion_field, settings.system_prompt)

    with run.phase("data"):
        check_settings(settings)
        data = read_data(settings, form)
        base = local_model(run, settings.model, settings.revision)
        start = read_start(run, settings.adapter, base) if settings.adapter else None
        tokenizer = load_tokenizer(
            start.tokenizer_source(base) if start else base.path,
            chat=form.chat,
            chat_template=settings.chat_template,
            pad_token=settings.pad_token,
        )
        examples, facts = encode(run, data, tokenizer, form)
        questions, asked = (
            ask_about(data.schemas, examples[name], tokenizer, form, settings) for name in ("test", "validation")
        )

    with run.phase("model"):
        rng.seed_everything(settings.seed)
        model = build_model(base, settings, compute).to(world.device)

    documents = {name: [example.document for example in side] for name, side in examples.items()}
    task = PackedTask(
        world, documents["train"], documents["validation"],
        batch=settings.batch.size, max_length=settings.max_length, seed=settings.seed, dtype=compute, loss=loss,
        answers=answer_scores(run, tokenizer, asked) if settings.evaluation.metric in ANSWER_METRICS else None,
    )  # fmt: skip
    prompting = about(settings, form, questions.end_tokens)
    results = CausalResults(run, model, tokenizer, base, compute, prompting, facts, start=settings.adapter)
    prompts = [example.prompt for example in examples["validation"][: settings.smoke_rows]]
    smoke: list[SmokePrompt] = [{"prompt": prompt, "add_special_tokens": not form.chat} for prompt in prompts]

    def report(micro_batch_rows: int) -> Report:
        return results.report(task, documents["test"], questions, settings.generation, micro_batch_rows)

    outcome = train(
        run, model, task,
        flops_per_token=flops_of_documents(model, documents["train"]),
        on_best=results.keep_best,
        on_stop=lambda outcome, clock: results.finish_stopped(
            outcome, clock, smoke, questions.end_tokens, lambda: report(outcome.progress.micro_batch_rows)
        ),
        extras=results.describe_checkpoint,
    )  # fmt: skip

    with run.phase("report"):
        results.restore_best(outcome.progress)
        with results.unless_stopped(outcome, smoke, questions.end_tokens):
            found = report(outcome.progress.micro_batch_rows)
        results.finish(outcome, found.numbers("tuned"), smoke, questions.end_tokens, found)
    publish(run)


def loss(model: nn.Module, batch: MicroBatch) -> TokenLoss:
    """Cross-entropy of the next token, summed over the tokens of the answers: the targets elsewhere are ``IGNORED``.

    The model is a ``CausalLoss``; the batch is a packed row of whole examples, with their bounds.
    """
    found: TokenLoss = model(**batch.tensors)
    return found


@dataclass
class Data:
    """Records of the three sides (without test data it is the validation side), their files, and schemas by record."""

    sides: dict[str, list[Record]]
    files: list[DataFile]
    schemas: dict[str, Any] | None


def check_settings(settings: SftSettings) -> None:
    """Raises InputError for settings that contradict each other."""
    check_rank(settings.adapter, settings.lora.rank)
    if settings.schema and settings.schema_field:
        raise InputError("settings.schema: give either schema or schema_field, not both")
    if (settings.schema or settings.schema_field) and not settings.json_extraction:
        raise InputError("settings.json_extraction: a schema is given, but the answers are not declared to be JSON")
    if (metric := settings.evaluation.metric) in ANSWER_METRICS:
        check_answer_metric(metric, settings)


def check_answer_metric(metric: str, settings: SftSettings) -> None:
    """Raises InputError where the settings leave nothing to measure it by."""
    if metric in JSON_METRICS and not settings.json_extraction:
        raise InputError(f"settings.evaluation.metric: {metric} needs json_extraction: true")
    if metric == "schema_compliance" and not (settings.schema or settings.schema_field):
        raise InputError(f"settings.evaluation.metric: {metric} needs schema or schema_field")
    if settings.generation.examples == 0:
        raise InputError(
            f"settings.evaluation.metric: {metric} is of generated answers, and settings.generation.examples is 0"
        )


def read_data(settings: SftSettings, form: Format) -> Data:
    """Reads and splits the data, with all checks that need no tokenizer. Raises InputError with file and line."""
    sides: dict[str, list[Record]] = {}
    files = []
    for name in ("train", "validation", "test"):
        if place := getattr(settings, name):
            sides[name], facts = read_all(find_files(place, name))
            files += facts
            if not sides[name]:
                raise InputError(f"settings.{name}: {place!r} holds no examples")
    for side in sides.values():
        check_records(side, form)
    if "validation" not in sides:
        sides["train"], sides["validation"] = split(
            sides["train"], settings.validation_share, settings.seed, "validation_share"
        )
    sides.setdefault("test", sides["validation"])
    asked = [*sides["test"], *sides["validation"]]
    return Data(sides, files, read_schemas(settings, asked) if settings.json_extraction else None)


def read_schemas(settings: SftSettings, records: list[Record]) -> dict[str, Any]:
    """The schema of each record, by its place; None where there is none."""
    if settings.schema:
        schema = read_json(settings.schema)
        check_schema(schema, f"settings.schema: {settings.schema}")
        return {record.place: schema for record in records}
    field = settings.schema_field
    return {record.place: read_schema(record, field) if field else None for record in records}


def encode(
    run: Run[SftSettings], data: Data, tokenizer: PreTrainedTokenizerBase, form: Format
) -> tuple[dict[str, list[Example]], list[DataFact]]:
    """Every side's examples as tokens, and the facts of files and sides for the record; the log has how many were truncated or left out."""
    limit = run.settings.max_length
    sides: dict[str, list[Example]] = {}
    facts: list[DataFact] = [*data.files]
    for name, records in data.sides.items():
        if name == "test" and records is data.sides["validation"]:
            sides["test"] = sides["validation"]  # there is no test data: no side of its own in the record
            continue
        sides[name], report = encode_examples(records, tokenizer, form, limit, run.log)
        facts.append(Side(name, report.counts(), report.dropped_places))
        run.log(
            f"{name}: {report.examples:,} examples, {report.tokens:,} tokens, {report.learnt_tokens:,} of them learnt; "
            f"{report.truncated:,} truncated at {limit}, {report.dropped:,} left out"
            + (f" ({', '.join(report.dropped_places)} …)" if report.dropped else "")
        )
        if report.closed:
            run.telemetry.flag(
                "no_end_marker",
                f"{name}: the chat template closes no answer; {tokenizer.eos_token!r} is put after each of "
                f"{report.closed:,} answers and learnt, so that the model learns to stop",
            )
    texts = {name: [f"{each.prompt} {each.answer}" for each in side] for name, side in sides.items()}
    flag_repetitions(run, **(texts if sides["test"] is not sides["validation"] else {**texts, "test": []}))
    return sides, facts


def ask_about(
    schemas: dict[str, Any] | None,
    examples: list[Example],
    tokenizer: PreTrainedTokenizerBase,
    form: Format,
    settings: SftSettings,
) -> Questions:
    """The held-out prompts that are answered at the end, asked with the generation's own system prompt if it has one."""
    chosen = examples[: settings.generation.examples]
    if settings.generation.system_prompt is not None and form.chat:
        asking = replace(form, system_prompt=settings.generation.system_prompt)
        chosen, _ = encode_examples([example.record for example in chosen], tokenizer, asking, settings.max_length)
    prompts = [prompt_ids(tokenizer, example.prompt, add_special_tokens=not form.chat) for example in chosen]
    expected = None
    if schemas is not None:
        values = [example.answer if form.chat else example.record.value[form.completion_field] for example in chosen]
        expected = Expected(values, [schemas[example.record.place] for example in chosen])
    return Questions(chosen, prompts, end_tokens(tokenizer, form), expected)


def answer_scores(
    run: Run[SftSettings], tokenizer: PreTrainedTokenizerBase, questions: Questions
) -> Callable[[nn.Module], dict[str, float]]:
    """Measures a ``CausalLoss`` by its answers to the questions: the figures of ``ANSWER_METRICS``."""

    def measure(model: nn.Module) -> dict[str, float]:
        assert isinstance(model, CausalLoss)
        scores = ask(run.world, model.network, tokenizer, questions, run.settings.generation, run.settings.seed).scores
        return {name: value for name, value in scores.items() if name in ANSWER_METRICS and isinstance(value, float)}

    return measure


def build_model(base: BaseModel, settings: SftSettings, compute: torch.dtype) -> CausalLoss:
    """A frozen base in the compute dtype with fp32 adapters (new ones, or those of ``settings.adapter``), or all of it in fp32 when
    the rank is 0."""
    network: Network = load_network(base.path, dtype=compute if settings.lora.rank else torch.float32)
    check_length(network, settings.max_length)
    if settings.adapter:
        network = load_adapter(network, settings.adapter, trainable=True)
    elif settings.lora.rank:
        network = add_lora(network, settings.lora, "CAUSAL_LM")
    if settings.batch.activation_checkpointing:
        checkpoint_activations(network)
    return CausalLoss(network)


def about(settings: SftSettings, form: Format, ends: list[int]) -> Prompting:
    """How the model is to be asked, for gpurun.json."""
    return {
        "max_length": settings.max_length,
        "chat": form.chat,
        "prompt_template": form.prompt_template,
        "system_prompt": form.system_prompt,
        "end_tokens": ends,
    }


if __name__ == "__main__":
    launch("sft", main)
