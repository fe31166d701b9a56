"""What a language model answers to held-out prompts: scored, and the tuned model beside its base."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from remote_payload.settings.generation import Generation
from remote_payload.train.chat import Example
from remote_payload.train.distributed import World
from remote_payload.train.folders import write_json, write_text
from remote_payload.train.generation import Answer, Sampling, generate, measure_latency
from remote_payload.train.json_metrics import json_metrics
from remote_payload.train.text_metrics import length_distribution, reference_metrics, vocabulary_richness

SHOWN = 20  # questions in samples.md
LONGEST_SHOWN = 2000  # characters of a prompt there; its end is what matters


@dataclass(frozen=True)
class Expected:
    """For answers that are JSON: the value each should have, and the schema it should obey (None where there is none)."""

    values: list[Any]
    schemas: list[Any]


@dataclass
class Questions:
    """Held-out prompts as tokens, and what to compare the answers with."""

    examples: list[Example]
    prompts: list[list[int]]
    end_tokens: list[int]
    expected: Expected | None = None


@dataclass
class Answers:
    """One model's answers to all questions, and the figures about them."""

    texts: list[str]
    scores: dict[str, Any] = field(default_factory=dict)


def sampling_of(settings: Generation, seed: int) -> Sampling:
    """The part of the settings that chooses tokens."""
    return Sampling(settings.max_new_tokens, settings.temperature, settings.top_p, settings.repetition_penalty, seed)


def ask(
    world: World,
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Questions,
    settings: Generation,
    seed: int,
) -> Answers:
    """The model's answers, each rank giving its share, and their scores. Every rank must call it."""
    sampling = sampling_of(settings, seed)
    mine = world.share(list(range(len(questions.prompts))))
    prompts = [questions.prompts[index] for index in mine]
    found = generate(network, tokenizer, prompts, sampling, questions.end_tokens, settings.batch_tokens)
    gathered = world.gather(list(zip(mine, found, strict=True)))
    answers = [answer for _, answer in sorted((pair for part in gathered for pair in part), key=lambda pair: pair[0])]
    scores = score(answers, questions)
    if settings.latency_examples:
        some = questions.prompts[: settings.latency_examples]
        scores["latency"] = measure_latency(network, tokenizer, some, sampling, questions.end_tokens)
    return Answers([answer.text for answer in answers], scores)


def score(answers: Sequence[Answer], questions: Questions) -> dict[str, Any]:
    """Figures about the answers: against the references, as JSON where that is asked for, and by themselves."""
    texts = [answer.text for answer in answers]
    scores: dict[str, Any] = {
        **reference_metrics(texts, [example.answer for example in questions.examples]),
        "ended_share": sum(answer.ended for answer in answers) / len(answers),
        "length": length_distribution([len(answer.ids) for answer in answers]),
        "vocabulary": vocabulary_richness(texts),
    }
    if questions.expected:
        scores |= json_metrics(texts, questions.expected.values, questions.expected.schemas)
    return scores


def write_reports(
    folder: Path, questions: Questions, settings: Generation, answered: dict[str, Answers], held_out: dict[str, Any]
) -> None:
    """``evaluation.json`` (all figures, by model), ``answers.jsonl`` (every prompt and answer) and ``samples.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "held_out": held_out,
        "generation": {
            "settings": asdict(settings),
            "examples": len(questions.examples),
            **{name: answers.scores for name, answers in answered.items()},
        },
    }
    write_json(folder / "evaluation.json", figures)
    if answered:
        lines = [json.dumps(row, ensure_ascii=False) for row in _rows(questions, answered)]
        write_text(folder / "answers.jsonl", "\n".join(lines) + "\n")
        write_text(folder / "samples.md", samples(questions, answered))


def _rows(questions: Questions, answered: dict[str, Answers]) -> list[dict[str, Any]]:
    return [
        {
            "prompt": example.prompt,
            "expected": example.answer,
            **{name: answers.texts[index] for name, answers in answered.items()},
        }
        for index, example in enumerate(questions.examples)
    ]


def samples(questions: Questions, answered: dict[str, Answers]) -> str:
    """The first questions with every model's answer, to be read."""
    parts = ["# Sample outputs\n"]
    for number, row in enumerate(_rows(questions, answered)[:SHOWN], start=1):
        parts.append(f"## {number}\n")
        parts += [f"**{name}**\n\n{_fenced(text[-LONGEST_SHOWN:])}\n" for name, text in row.items()]
    return "\n".join(parts)


def _fenced(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"


def summary(answered: dict[str, Answers], held_out: dict[str, dict[str, float]]) -> list[str]:
    """Lines for the log: each figure, base beside tuned."""
    names = list(held_out)
    rows: dict[str, list[float | None]] = {}
    for key in held_out[names[0]]:
        rows[key] = [held_out[name].get(key) for name in names]
    for key in ("json_exact", "field_f1", "schema_compliance", "bleu", "rougeL", "ended_share"):
        rows[key] = [answered[name].scores.get(key) if name in answered else None for name in names]
    shown = {key: values for key, values in rows.items() if any(value is not None for value in values)}
    cells = {key: ["-" if value is None else f"{value:.4f}" for value in values] for key, values in shown.items()}
    return [f"{'':<20}" + "".join(f"{name:>12}" for name in names)] + [
        f"{key:<20}" + "".join(f"{cell:>12}" for cell in values) for key, values in cells.items()
    ]
