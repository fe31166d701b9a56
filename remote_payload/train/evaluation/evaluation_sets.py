"""Evaluating a language model on many named sets of questions at once: questions of all sets are packed together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from remote_payload.train.data.batching import AT_ONCE, batches_of
from remote_payload.train.data.packing import Document
from remote_payload.train.data.structured import Example
from remote_payload.train.distributed import World
from remote_payload.train.errors import InputError
from remote_payload.train.model.precision import autocast
from remote_payload.train.tasks.rows import PackedRows, dealt_out

SetMetrics = dict[str, dict[str, float]]  # by the name of the set, then by the name of the metric


def encode(
    examples: Iterable[Example], tokenizer: PreTrainedTokenizerBase, max_length: int, ending: bool
) -> list[Document]:
    """The examples as tokens, of which the completion's are learnt, and the end token if ``ending``.

    Prompt and completion are tokenized separately, as they are when the model answers a prompt, those of many examples at once on all
    cores. A text that is too long is truncated at its end; a question (not ``ending``) at the beginning of its prompt.
    """
    start = [tokenizer.bos_token_id] if _begins_texts(tokenizer) else []
    end = [tokenizer.eos_token_id] if ending else []
    kept = slice(max_length) if ending else slice(-max_length, None)
    documents = []
    for batch in batches_of(examples, lambda example: len(example.prompt) + len(example.completion), AT_ONCE):
        prompts = tokenizer([example.prompt for example in batch], add_special_tokens=False)["input_ids"]
        completions = tokenizer([example.completion for example in batch], add_special_tokens=False)["input_ids"]
        for prompt, completion in zip(prompts, completions, strict=True):
            given, learnt = start + prompt, completion + end
            learn = [False] * len(given) + [True] * len(learnt)
            documents.append(Document((given + learnt)[kept], learn[kept]))
    return documents


def _begins_texts(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts its beginning-of-text token before a text."""
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]


class EvaluationSets:
    """Named sets of questions. Each question is a document of which only the answer's tokens count."""

    def __init__(self, sets: Mapping[str, Sequence[Document]], capacity: int) -> None:
        for name, documents in sets.items():
            if not all(document.counted for document in documents):
                raise InputError(
                    f"evaluation set {name}: a question without a prompt, so its answer's first token is a guess"
                )
        self.owners = [name for name, documents in sets.items() for _ in documents]
        self.rows = PackedRows([document for documents in sets.values() for document in documents], capacity)
        self.names = list(sets)

    def measure(self, model: nn.Module, world: World, compute: torch.dtype, size: int) -> SetMetrics:
        """Metrics by set, the same on every rank: ``loss`` (nats for each token of the answers), ``token_accuracy`` and ``accuracy``.

        An answer is accurate when each of its tokens is the most probable one after the tokens before it.
        """
        documents: list[int] = []
        found: list[
            Tensor
        ] = []  # of each batch: the log-probability of every answer's token, and whether it was the most probable
        for indices in dealt_out(world, range(len(self.rows)), size):
            with autocast(world.device, compute):
                scores = model(**self.rows.collate(indices or [0]).to(world.device).tensors, each_token=True)
            if indices:
                documents += self.rows.documents_of(indices)
                found.append(torch.stack([scores.log_probability, scores.correct.float()]))
        totals = {name: [0.0, 0.0, 0.0, 0.0, 0.0] for name in self.names}
        if found:
            self._add(totals, documents, *torch.cat(found, dim=1).tolist())  # the one wait for the device
        flat = iter(world.sum(*(value for name in self.names for value in totals[name])))
        return {name: summarise([next(flat) for _ in range(5)]) for name in self.names}

    def _add(
        self, totals: dict[str, list[float]], documents: list[int], scores: list[float], hits: list[float]
    ) -> None:
        at = 0
        for document in documents:
            end = at + self.rows.documents[document].counted
            right = sum(hits[at:end])
            found = (-sum(scores[at:end]), end - at, right, 1, right == end - at)
            total = totals[self.owners[document]]
            for index, value in enumerate(found):
                total[index] += value
            at = end


def summarise(total: Sequence[float]) -> dict[str, float]:
    """The metrics of summed loss, tokens, tokens that were right, answers, and answers of which every token was right."""
    loss, tokens, correct, answers, whole = total
    return {"loss": loss / tokens, "accuracy": whole / answers, "token_accuracy": correct / tokens}


def overall(results: SetMetrics) -> dict[str, float]:
    """The mean of every metric over the sets. Each set has the same weight."""
    kinds = next(iter(results.values()))
    return {kind: fmean(result[kind] for result in results.values()) for kind in kinds}
