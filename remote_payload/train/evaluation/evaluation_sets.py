"""Evaluating a language model on many named sets of questions at once, packed together whatever set they are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from remote_payload.train.data.packing import Document
from remote_payload.train.data.structured import Example
from remote_payload.train.distributed import World
from remote_payload.train.errors import InputError
from remote_payload.train.model.precision import autocast
from remote_payload.train.tasks.rows import PackedRows, dealt_out

Results = dict[str, dict[str, float]]


def encode(example: Example, tokenizer: PreTrainedTokenizerBase, max_length: int, ending: bool) -> Document:
    """The example as tokens, of which the completion's are learnt, and the end token if ``ending``.

    Prompt and completion are tokenized apart, as the model meets them when it answers. Too long a text loses its end; a
    question instead (not ``ending``) loses the beginning of its prompt.
    """
    start = [tokenizer.bos_token_id] if _begins_texts(tokenizer) else []
    given = start + tokenizer(example.prompt, add_special_tokens=False)["input_ids"]
    said = tokenizer(example.completion, add_special_tokens=False)["input_ids"]
    if ending:
        said = [*said, tokenizer.eos_token_id]
    ids, learn = given + said, [False] * len(given) + [True] * len(said)
    return (
        Document(ids[:max_length], learn[:max_length]) if ending else Document(ids[-max_length:], learn[-max_length:])
    )


def _begins_texts(tokenizer: PreTrainedTokenizerBase) -> bool:
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]


class EvaluationSets:
    """Sets of questions, each a document whose answer is what counts."""

    def __init__(self, sets: Mapping[str, Sequence[Document]], capacity: int) -> None:
        for name, documents in sets.items():
            if not all(document.counted for document in documents):
                raise InputError(
                    f"evaluation set {name}: a question without a prompt, so its answer's first token is a guess"
                )
        self.owners = [name for name, documents in sets.items() for _ in documents]
        self.rows = PackedRows([document for documents in sets.values() for document in documents], capacity)
        self.names = list(sets)

    def measure(self, model: nn.Module, world: World, compute: torch.dtype, size: int) -> Results:
        """By set, the same on every rank: ``loss`` (nats a token of the answers), ``token_accuracy``, and ``accuracy``.

        An answer is accurate when each of its tokens is the most probable one after those before it.
        """
        totals = {name: [0.0, 0.0, 0.0, 0.0, 0.0] for name in self.names}
        for indices in dealt_out(world, range(len(self.rows)), size):
            documents = self.rows.documents_of(indices or [0])
            with autocast(world.device, compute):
                scores = model(**self.rows.collate(indices or [0]).to(world.device).tensors, each_token=True)
            if indices:
                self._add(totals, documents, scores.log_probability.tolist(), scores.correct.tolist())
        flat = iter(world.sum(*(value for name in self.names for value in totals[name])))
        return {name: _summary([next(flat) for _ in range(5)]) for name in self.names}

    def _add(self, totals: dict[str, list[float]], documents: list[int], scores: list[float], hits: list[bool]) -> None:
        at = 0
        for document in documents:
            end = at + self.rows.documents[document].counted
            right = sum(hits[at:end])
            found = (-sum(scores[at:end]), end - at, right, 1, right == end - at)
            total = totals[self.owners[document]]
            for index, value in enumerate(found):
                total[index] += value
            at = end


def _summary(total: list[float]) -> dict[str, float]:
    loss, tokens, correct, answers, whole = total
    return {"loss": loss / tokens, "accuracy": whole / answers, "token_accuracy": correct / tokens}


def overall(results: Results) -> dict[str, Any]:
    """The mean over the sets, each counting the same, of every metric."""
    kinds = next(iter(results.values()))
    return {kind: fmean(result[kind] for result in results.values()) for kind in kinds}
