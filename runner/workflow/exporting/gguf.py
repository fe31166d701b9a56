"""The model as one GGUF file: converted by llama.cpp, then loaded by its server and compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.domain.errors import SmokeTestFailed, UserError
from runner.domain.progress import Reporter
from runner.files import read_json
from runner.local_model.compare import Comparison, compare
from runner.local_model.llama_cpp.convert import TOLERANCE, check_tokenizer, quantize, supported_architectures
from runner.local_model.llama_cpp.programs import LlamaCpp, converter_command, find_llama_cpp
from runner.local_model.llama_cpp.server import LlamaServer, serving
from runner.local_model.messages import Measured, RowDifference
from runner.local_model.model_folder import CONFIG, ModelFolder


@dataclass(frozen=True)
class Question:
    """A prompt with its token ids; the ``tokens`` that followed (an end token may be the last) and, after the prompt, the
    log-probabilities of the most probable tokens. ``scale`` is the largest absolute logit, ``end`` an end token."""

    prompt: str
    add_special_tokens: bool
    ids: list[int]
    tokens: list[int]
    likely: dict[int, float]
    scale: float
    end: int


@dataclass(frozen=True)
class Converter:
    """llama.cpp on this machine, and how its converter is called."""

    llama_cpp: LlamaCpp
    command: list[str]


def refuse_no_language_model(model: ModelFolder) -> None:
    """Raises UserError for a classifier, whose head GGUF has no place for."""
    if model.kind != "causal_lm":
        raise UserError(
            f"{model.folder} is a classifier, and a GGUF file would lose its head",
            meaning="llama.cpp and Ollama generate text. Nothing was exported.",
            hint="gpurun export --merged writes it for transformers.",
        )


def find_converter(report: Reporter) -> Converter:
    """llama.cpp's programs. Raises UserError with the lines that get them, ArtifactError where its packages cannot be installed."""
    llama_cpp = find_llama_cpp()
    return Converter(llama_cpp, converter_command(llama_cpp, report))


def refuse_unknown(model: ModelFolder, base: Path | None, converter: Converter, report: Reporter) -> None:
    """Raises UserError for an architecture, ArtifactError for a tokenizer that the converter does not know."""
    named = read_json((base or model.folder) / CONFIG).get("architectures")
    architectures = [str(name) for name in named] if isinstance(named, list) else []
    with report.stage("ask llama.cpp's converter"):
        known = supported_architectures(converter.command)
        if known and not known & set(architectures):
            raise UserError(
                f"llama.cpp's converter does not know the architecture {', '.join(architectures)[:200]}",
                meaning="Nothing was exported.",
                hint="A newer llama.cpp may know it. gpurun export --merged writes the model for transformers.",
            )
        check_tokenizer(converter.command, model.folder, base)


def write_gguf(
    converter: Converter,
    wide: Path,
    dtype: str,
    quantisation: str,
    into: Path,
    questions: Path,
    report: Reporter,
) -> Comparison:
    """Writes the file ``into`` from the GGUF file ``wide`` with weights of ``dtype``, and compares it.

    Raises ArtifactError where llama.cpp fails, and SmokeTestFailed where it cuts a prompt into other tokens.
    """
    asked = read_questions(questions)
    quantize(converter.llama_cpp.quantize, wide, dtype, quantisation, into)
    length = max(len(each.ids) + len(each.tokens) for each in asked) + 8
    with report.stage(f"load and ask {into.name}"), serving(converter.llama_cpp.server, into, length) as server:
        _refuse_other_tokens(server, asked, into.name)
        measured = measure(server, asked)
    return compare(measured, TOLERANCE[quantisation] * max(1.0, measured.scale))


def measure(server: LlamaServer, questions: Sequence[Question]) -> Measured:
    """The probabilities after each prompt, and its greedy continuation, beside those that were expected."""
    rows, agree = [], 0
    for asked in questions:
        found = server.log_probabilities(asked.ids, asked.end)
        continued = server.continued(asked.ids, len(asked.tokens))
        pairs = zip(continued, asked.tokens, strict=False)
        same = next(
            (at for at, (here, there) in enumerate(pairs) if here != there), min(len(continued), len(asked.tokens))
        )
        agree += same
        gap, here, there = None, "", ""
        if same < min(len(continued), len(asked.tokens)):
            after = server.log_probabilities([*asked.ids, *asked.tokens[:same]], asked.end)
            here, there = f"token {continued[same]}", f"token {asked.tokens[same]}"
            gap = _of(after, continued[same]) - _of(after, asked.tokens[same])
        rows.append(
            RowDifference(max(abs(_of(found, id) - value) for id, value in asked.likely.items()), gap, here, there)
        )
    scale = max(asked.scale for asked in questions)
    return Measured(tuple(rows), scale, agree, sum(len(asked.tokens) for asked in questions))


def _refuse_other_tokens(server: LlamaServer, questions: Sequence[Question], name: str) -> None:
    """Raises SmokeTestFailed where llama.cpp cuts a prompt into other tokens than the model was trained on."""
    for row, asked in enumerate(questions, 1):
        found = server.tokens_of(asked.prompt, special=asked.add_special_tokens)
        if found != asked.ids:
            at = next((at for at, pair in enumerate(zip(found, asked.ids, strict=False)) if pair[0] != pair[1]), 0)
            raise SmokeTestFailed(
                f"{name}: llama.cpp cuts row {row} into other tokens than the model's tokenizer, from token {at + 1} on",
                meaning="The file was removed: the model would read other text than it was trained on.",
                hint="A newer llama.cpp may know this tokenizer.",
            )


def _of(listed: dict[int, float], token: int) -> float:
    """The log-probability of a token; of one that is not listed, the least of the listed ones, which is at least as much."""
    return listed.get(token, min(listed.values()))


def read_questions(file: Path) -> list[Question]:
    """What the model's process wrote for the server to be asked."""
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return [Question(**{**row, "likely": {int(id): value for id, value in row["likely"].items()}}) for row in rows]
