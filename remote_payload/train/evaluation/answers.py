"""The answers of a language model to held-out prompts, and their scores: those of the tuned model beside those of its base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from remote_payload.settings.generation import Generation
from remote_payload.train.data.chat import Example
from remote_payload.train.distributed import World
from remote_payload.train.evaluation.generation import Answer, generate, measure_latency, sampling_of
from remote_payload.train.evaluation.json_metrics import json_metrics
from remote_payload.train.evaluation.text_metrics import length_distribution, reference_metrics, vocabulary_richness
from remote_payload.train.files import write_json, write_json_lines, write_text

SHOWN = 20  # questions in samples.md
WIDEST = 40  # characters of a figure's name in the log
LONGEST_SHOWN = 2000  # characters of a prompt there, from its end

Scores = dict[str, float | dict[str, float]]  # figures by name; a distribution is a dict of figures


@dataclass(frozen=True)
class Expected:
    """For answers that are JSON: the value that each should have, and its JSON Schema (None where there is none)."""

    values: list[Any]
    schemas: list[Any]


@dataclass
class Questions:
    """Held-out prompts as token ids, and what to compare the answers with."""

    examples: list[Example]
    prompts: list[list[int]]
    end_tokens: list[int]
    expected: Expected | None = None


@dataclass
class Answers:
    """One model's answers to all questions, and the figures about them."""

    texts: list[str]
    scores: Scores = field(default_factory=dict)


def ask(
    world: World,
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Questions,
    settings: Generation,
    seed: int,
) -> Answers:
    """The model's answers and their scores. Every rank must call it: each generates its share of the answers."""
    sampling = sampling_of(settings, seed)
    mine = world.share(list(range(len(questions.prompts))))
    prompts = [questions.prompts[index] for index in mine]
    found = generate(network, tokenizer, prompts, sampling, questions.end_tokens, settings.batch_tokens)
    gathered = world.gather(list(zip(mine, found, strict=True)))
    answers = [answer for _, answer in sorted((pair for part in gathered for pair in part), key=lambda pair: pair[0])]
    scores = score(answers, questions)
    return Answers([answer.text for answer in answers], scores)


def time_answers(
    network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: Questions, settings: Generation, seed: int
) -> dict[str, float]:
    """How long the first ``latency_examples`` questions take, one at a time; empty for none."""
    some = questions.prompts[: settings.latency_examples]
    return measure_latency(network, tokenizer, some, sampling_of(settings, seed), questions.end_tokens) if some else {}


def score(answers: Sequence[Answer], questions: Questions) -> Scores:
    """Figures about the answers: compared with the references, as JSON if they should be JSON, and by themselves."""
    texts = [answer.text for answer in answers]
    references = [example.answer for example in questions.examples]
    scores: Scores = {
        **measured("bleu and rouge", lambda: reference_metrics(texts, references)),
        **text_scores(answers),
    }
    if expected := questions.expected:
        scores |= measured("json", lambda: json_metrics(texts, expected.values, expected.schemas))
    return scores


def text_scores(answers: Sequence[Answer]) -> Scores:
    """Figures about answers by themselves: how many ended, their lengths in tokens, their words."""
    return {
        "ended_share": sum(answer.ended for answer in answers) / len(answers),
        "length": length_distribution([len(answer.ids) for answer in answers]),
        "vocabulary": measured("vocabulary", lambda: vocabulary_richness([answer.text for answer in answers])),
    }


def measured(what: str, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """The figures. Where measuring fails, none and a line in the log: a trained model must not be lost because of a figure."""
    try:
        return measure()
    except Exception as error:
        print(f"answers: {what} could not be measured: {type(error).__name__}: {error}", flush=True)
        return {}


@dataclass
class Report:
    """What was measured at the end, by model ("tuned", "base"): metrics over held-out documents, and answers."""

    questions: Questions
    held_out: dict[str, dict[str, float]] = field(default_factory=dict)
    answered: dict[str, Answers] = field(default_factory=dict)

    def numbers(self, name: str) -> dict[str, float]:
        """All figures of one model that are single numbers; those of its answers are called ``generation/…``."""
        scores = self.answered[name].scores if name in self.answered else {}
        single = {f"generation/{key}": value for key, value in scores.items() if isinstance(value, (int, float))}
        return {**self.held_out[name], **single}

    def figures(self, name: str) -> dict[str, float]:
        """``numbers``, and those of each distribution as ``generation/length/mean``."""
        found = self.numbers(name)
        for key, value in self.answered[name].scores.items() if name in self.answered else ():
            if isinstance(value, dict):
                found |= {f"generation/{key}/{part}": number for part, number in value.items()}
        return found

    def rows(self) -> list[dict[str, str]]:
        """Each question with the expected answer and the answer of every model."""
        return [
            {
                "prompt": example.prompt,
                "expected": example.answer,
                **{name: answers.texts[index] for name, answers in self.answered.items()},
            }
            for index, example in enumerate(self.questions.examples)
        ]

    def table(self) -> dict[str, list[str]]:
        """Each figure by its name, with one cell for each model."""
        columns = {name: self.figures(name) for name in self.held_out}
        keys = dict.fromkeys(key for column in columns.values() for key in column)
        return {key: [_cell(column.get(key)) for column in columns.values()] for key in keys}

    def lines(self) -> list[str]:
        """The table, for the log."""
        head = f"{'':<{WIDEST}}" + "".join(f"{name:>12}" for name in self.held_out)
        rows = (f"{key:<{WIDEST}}" + "".join(f"{cell:>12}" for cell in cells) for key, cells in self.table().items())
        return [head, *rows]


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def write_report(folder: Path, report: Report, settings: Generation) -> None:
    """Writes ``evaluation.json`` (all figures, by model), ``answers.jsonl`` (every prompt and answer) and ``samples.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    scores = {name: answers.scores for name, answers in report.answered.items()}
    generation = {"settings": asdict(settings), "examples": len(report.questions.examples), **scores}
    write_json(folder / "evaluation.json", {"held_out": report.held_out, "generation": generation})
    if report.answered:
        write_json_lines(folder / "answers.jsonl", report.rows())
        write_text(folder / "samples.md", samples(report))


def samples(report: Report) -> str:
    """The first questions with every model's answer, as Markdown for people."""
    parts = ["# Sample outputs\n"]
    for number, row in enumerate(report.rows()[:SHOWN], start=1):
        parts.append(f"## {number}\n")
        parts += [f"**{name}**\n\n{_fenced(text[-LONGEST_SHOWN:])}\n" for name, text in row.items()]
    return "\n".join(parts)


def _fenced(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"
