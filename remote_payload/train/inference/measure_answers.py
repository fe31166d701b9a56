"""What is measured of a language model: the loss of the right answers, and the answers that it gives itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from transformers import PreTrainedTokenizerBase

from remote_payload.settings.evaluate import Asking, EvaluateSettings
from remote_payload.train.errors import InputError
from remote_payload.train.evaluation.answers import measured, text_scores
from remote_payload.train.evaluation.continuations import with_room
from remote_payload.train.evaluation.document_scores import DocumentScore, score_documents
from remote_payload.train.evaluation.evaluation_sets import summarise
from remote_payload.train.evaluation.generation import Answer, generate, measure_latency, sampling_of
from remote_payload.train.evaluation.json_metrics import json_metrics
from remote_payload.train.evaluation.right_answers import contains_right, is_right
from remote_payload.train.evaluation.text_metrics import reference_metrics
from remote_payload.train.inference.found import Found, Metrics, Row, Say, by_set, flattened
from remote_payload.train.inference.questions import Question
from remote_payload.train.model.causal import Network


@dataclass(frozen=True)
class Answered:
    """A question with the model's answers, the loss of the right one (None where there is none), and the metrics of this example."""

    question: Question
    answers: list[Answer]
    score: DocumentScore | None
    metrics: Metrics

    @property
    def texts(self) -> list[str]:
        return [answer.text for answer in self.answers]

    def as_row(self) -> Row:
        """A line of the file."""
        answers = [{"text": answer.text, "tokens": len(answer.ids), "ended": answer.ended} for answer in self.answers]
        line = {"prompt": self.question.prompt, "right": list(self.question.right), "answers": answers}
        return Row(self.question.item.id, self.question.item.set, line, self.metrics)


@dataclass(frozen=True)
class Judge:
    """Compares answers with the right ones: as text, or as JSON with the schema of each example (by its id; None where it has none)."""

    schemas: Mapping[str, Any] | None

    def of_one(self, question: Question, texts: Sequence[str]) -> Metrics:
        """The metrics of one question's answers (several samples: their means); none for a question without a right answer."""
        right = list(question.right)
        if not right:
            return {}
        if self.schemas is not None:
            return measured("json", lambda: self._json([question] * len(texts), texts))
        hits = [float(is_right(text, right)) for text in texts]
        found = {"right": fmean(hits), "contains_right": fmean(float(contains_right(text, right)) for text in texts)}
        if len(texts) > 1:
            found["any_right"] = max(hits)
        rouge = measured("rouge", lambda: reference_metrics(texts, [right[0]] * len(texts)))
        return {**found, **{name: value for name, value in rouge.items() if name != "bleu"}}

    def of_all(self, answered: Sequence[Answered]) -> Metrics:
        """The same of all answers at once, BLEU too, which is no mean over examples."""
        pairs = [(each.question, text) for each in answered for text in each.texts if each.question.right]
        asked, given = [question for question, _ in pairs], [text for _, text in pairs]
        if not pairs:
            return {}
        if self.schemas is not None:
            return measured("json", lambda: self._json(asked, given))
        return measured("bleu and rouge", lambda: reference_metrics(given, [each.right[0] for each in asked]))

    def _json(self, questions: Sequence[Question], texts: Sequence[str]) -> Metrics:
        assert self.schemas is not None
        expected = [each.item.answer if each.item.right else each.right[0] for each in questions]
        return json_metrics(texts, expected, [self.schemas[each.item.id] for each in questions])


def measure_losses(network: Network, questions: Sequence[Question], say: Say) -> dict[str, DocumentScore]:
    """The loss of each right answer, by the question's id; empty for a model whose loss cannot be measured, which is said."""
    known = [(question.item.id, question.document) for question in questions if question.document is not None]
    try:
        scores = score_documents(
            network, [document for _, document in known], lambda done: say(f"loss: {done:,} of {len(known):,} examples")
        )
    except InputError as error:
        say(f"no loss: {error}")
        return {}
    return {name: score for (name, _), score in zip(known, scores, strict=True)}


def measure_answers(
    network: Network,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    end_tokens: Sequence[int],
    asking: Asking,
    settings: EvaluateSettings,
    judge: Judge,
    losses: Mapping[str, DocumentScore],
) -> Found:
    """Asks the model in one way, and puts what it answers beside the ``losses``."""
    given: list[list[Answer]] = [[] for _ in questions]
    latency: Metrics = {}
    if settings.generate:
        sampling = sampling_of(asking, settings.seed)
        prompts = [with_room(network, question.ids) for question in questions]
        repeated = [prompt for prompt in prompts for _ in range(settings.samples)]
        answers = iter(generate(network, tokenizer, repeated, sampling, end_tokens))
        given = [[next(answers) for _ in range(settings.samples)] for _ in prompts]
        if some := prompts[: settings.latency_examples]:
            latency = measure_latency(network, tokenizer, some, sampling, end_tokens)
    answered = [_answered(each, mine, losses, judge) for each, mine in zip(questions, given, strict=True)]
    everything = [answer for each in answered for answer in each.answers]
    figures = flattened({**(text_scores(everything) if everything else {}), "latency": latency})
    rows = [each.as_row() for each in answered]
    return Found(rows, {**_over(answered, judge), **figures}, by_set(rows, answered, lambda part: _over(part, judge)))


def _answered(question: Question, answers: list[Answer], losses: Mapping[str, DocumentScore], judge: Judge) -> Answered:
    score = losses.get(question.item.id)
    own = _of_losses([score]) if score else {}
    if answers:
        own |= judge.of_one(question, [answer.text for answer in answers])
    return Answered(question, answers, score, own)


def _over(answered: Sequence[Answered], judge: Judge) -> Metrics:
    """The metrics of some examples together."""
    found = _of_losses([each.score for each in answered if each.score])
    if "loss" in found:
        found["perplexity"] = math.exp(min(found["loss"], 700.0))
    for name in ("right", "contains_right", "any_right"):
        if values := [each.metrics[name] for each in answered if name in each.metrics]:
            found[name] = fmean(values)
    return found | judge.of_all(answered)


def _of_losses(scores: Sequence[DocumentScore]) -> Metrics:
    """``loss``, ``token_accuracy`` and ``accuracy`` (shares of tokens and of whole answers) of some documents; nothing of none."""
    if not scores:
        return {}
    tokens, correct = sum(each.tokens for each in scores), sum(each.correct for each in scores)
    whole = sum(each.correct == each.tokens for each in scores)
    return summarise([sum(each.loss for each in scores), tokens, correct, len(scores), whole])
