"""The task of learning from pairs: a better and a worse answer to one prompt, as the recipe ``preference`` does.

The reference is the model that training starts from (its adapter included). It never changes, so the log-probabilities
that it gives to the answers are computed once, before training, and travel with the pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from remote_payload.settings.preference import METRICS, PreferenceSettings
from remote_payload.train.data.batching import epoch_order
from remote_payload.train.data.chat import Example, Format, as_text, encode_all
from remote_payload.train.data.packing import Document, first_fit_decreasing, pack
from remote_payload.train.data.records import Record
from remote_payload.train.distributed import World
from remote_payload.train.errors import InputError
from remote_payload.train.loop.step import MicroBatch
from remote_payload.train.model.causal import CausalLoss, chunked_log_probabilities
from remote_payload.train.model.precision import autocast
from remote_payload.train.tasks.sums import add_up

TIE = 1e-3  # rewards that differ by less count as equal: rounding makes two equal ones differ


@dataclass(frozen=True)
class Pair:
    """Two documents with one prompt, and their log-probabilities under the reference once these are computed."""

    chosen: Document
    rejected: Document
    question: Example
    reference: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self.chosen) + len(self.rejected)


class PairLoss(NamedTuple):
    """Of the pairs of a micro-batch: the summed loss (differentiable), their number, and for the evaluation each one's loss
    ``[pairs]`` and the rewards ``[pairs, 2]`` of the chosen and the rejected answer.
    """

    sum: Tensor
    count: Tensor
    losses: Tensor
    rewards: Tensor


def preferred(margin: Tensor) -> Tensor:
    """1 where the chosen answer has the higher reward, 0 where the rejected one has, and a half for a tie, as at the start."""
    return torch.where(margin.abs() < TIE, 0.5, (margin > 0).float())


def encode_pairs(
    records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, form: Format, settings: PreferenceSettings
) -> tuple[list[Pair], list[str]]:
    """The pairs as tokens, and the places of those left out because one side is over ``settings.max_length``.

    Raises InputError with file and line for a record that is no pair, and when nothing is left.
    """
    pairs, left_out = [], []
    fields = (settings.chosen_field, settings.rejected_field)
    examples = encode_all(
        (answered(record, field, form, settings) for record in records for field in fields), tokenizer, form
    )
    for record, *sides in zip(
        records, examples, examples, strict=True
    ):  # the one iterator twice: two examples a record
        if sides[0].document == sides[1].document:
            raise InputError(f"{record.place}: {settings.chosen_field} and {settings.rejected_field} are the same")
        if max(len(side.document) for side in sides) > settings.max_length:
            left_out.append(record.place)
        else:
            chosen, rejected = (last_turn_only(side.document) for side in sides)
            pairs.append(Pair(chosen, rejected, sides[0]))
    if not pairs:
        where = ", ".join(left_out[:5]) or "no pairs"
        raise InputError(f"settings.max_length: every pair is over {settings.max_length} tokens ({where})")
    return pairs, left_out


def answered(record: Record, field: str, form: Format, settings: PreferenceSettings) -> Record:
    """The record with one of its answers, as training of the adapter saw it: a conversation or a prompt and its completion."""
    answer = record.field(field, (str, list, dict))
    if form.chat:
        if isinstance(answer, dict) and "role" in answer:  # one message without a list around it
            answer = [answer]
        turns = answer if _is_messages(answer) else [{"role": "assistant", "content": as_text(answer)}]
        prompt = record.field(settings.prompt_field, (str, list))
        messages = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
        if turns[: len(messages)] == messages:  # both answers are often kept with the prompt in front
            turns = turns[len(messages) :]
        return replace(record, value={**record.value, form.messages_field: [*messages, *turns]})
    return replace(record, value={**record.value, form.completion_field: as_text(answer)})


def _is_messages(answer: Any) -> bool:
    return (
        isinstance(answer, list) and all(isinstance(item, dict) and "role" in item for item in answer) and answer != []
    )


def last_turn_only(document: Document) -> Document:
    """The same with only the last run of learnt tokens learnt: earlier answers of a conversation are not compared."""
    end = max(index for index, learnt in enumerate(document.learn) if learnt)
    start = end
    while start and document.learn[start - 1]:
        start -= 1
    return Document(document.ids, [start <= index <= end for index in range(len(document))])


class PreferenceTask:
    """A ``Task`` over pairs, for a ``CausalLoss``; a row of full length is a pair, ``loss`` is the recipe's."""

    fixed_shapes = False
    scores_width = 1 + len(METRICS)

    def __init__(
        self,
        settings: PreferenceSettings,
        world: World,
        pairs: Sequence[Pair],
        held_out: Sequence[Pair],
        compute: torch.dtype,
        loss: Callable[[nn.Module, MicroBatch], PairLoss],
    ) -> None:
        self.settings, self.world, self.pairs, self.held_out = settings, world, pairs, held_out
        self.loss_function, self.autocast = loss, autocast(world.device, compute)
        self.steps_per_epoch = math.ceil(len(pairs) / settings.batch.size)

    def steps(self, epoch: int, start: int) -> Iterator[list[int]]:
        order, size = epoch_order(len(self.pairs), self.settings.seed, epoch), self.settings.batch.size
        for step in range(start, self.steps_per_epoch):
            yield order[step * size : (step + 1) * size]

    def micro_batches(self, step: list[int], micro_batch_rows: int) -> list[MicroBatch]:
        longest_first = sorted(step, key=lambda index: (-len(self.pairs[index]), index))
        return self._packed([self.pairs[index] for index in self.world.share(longest_first)], micro_batch_rows)

    def heaviest(self, micro_batch_rows: int) -> MicroBatch:
        return collate([max(self.pairs, key=len)] * micro_batch_rows)

    def loss(self, model: nn.Module, batch: MicroBatch) -> PairLoss:
        """The recipe's loss of a micro-batch on this rank's device, matrix products in the task's dtype."""
        with self.autocast:
            return self.loss_function(model, batch)

    def evaluate(self, model: nn.Module, micro_batch_rows: int) -> dict[str, float]:
        return self.measure(model, self.held_out, micro_batch_rows)

    def measure(self, model: nn.Module, pairs: Sequence[Pair], micro_batch_rows: int) -> dict[str, float]:
        """Means over the pairs of all ranks. A reward is beta times how much likelier an answer became than it was."""
        batches = self._packed(self.world.share(list(pairs)), micro_batch_rows)
        losses = (self.loss(model, batch.to(self.world.device)) for batch in batches)
        sums = add_up(map(pair_sums, losses), 1 + len(METRICS), self.world.device)
        return self.figures(self.world.sum_on_device((), sums).tolist())

    def scores(self, batch: MicroBatch, loss: PairLoss) -> Tensor:
        return pair_sums(loss)

    def figures(self, scores: list[float]) -> dict[str, float]:
        """The mean of each of ``METRICS`` from ``pair_sums``."""
        count, *totals = scores
        return {name: total / max(count, 1.0) for name, total in zip(METRICS, totals, strict=True)}

    @torch.no_grad()
    def with_reference(self, model: nn.Module, pairs: Sequence[Pair]) -> list[Pair]:
        """The pairs with the log-probabilities that ``model``, here the reference, gives; one pair at a time."""
        answers = []
        for pair in pairs:
            with self.autocast:
                answers.append(answer_log_probabilities(model, collate([pair]).to(self.world.device)))
        found = torch.cat(answers).tolist() if answers else []
        return [replace(pair, reference=(first, second)) for pair, (first, second) in zip(pairs, found, strict=True)]

    def _packed(self, pairs: Sequence[Pair], micro_batch_rows: int) -> list[MicroBatch]:
        groups = first_fit_decreasing([len(pair) for pair in pairs], micro_batch_rows * 2 * self.settings.max_length)
        return [collate([pairs[index] for index in group]) for group in groups]


def pair_sums(loss: PairLoss) -> Tensor:
    """``[1 + metrics]``: the number of pairs, then each of ``METRICS`` summed over them."""
    chosen, rejected = loss.rewards[:, 0], loss.rewards[:, 1]
    margin = chosen - rejected
    columns = [torch.ones_like(margin), loss.losses.detach(), preferred(margin), margin, chosen, rejected]
    return torch.stack(columns).double().sum(dim=1)


def answer_log_probabilities(model: CausalLoss, batch: MicroBatch) -> Tensor:
    """``[pairs, 2]`` in fp32: log-probability of the chosen and of the rejected answer, summed over its tokens."""
    tensors = dict(batch.tensors)
    owners, reference, targets, counted = (tensors.pop(name) for name in ("owners", "reference", "targets", "counted"))
    tokens = chunked_log_probabilities(model.hidden(**tensors), model.head, targets, counted=counted)
    return tokens.new_zeros(2 * len(reference)).index_add(0, owners, tokens).view(-1, 2)


def collate(pairs: Sequence[Pair]) -> MicroBatch:
    """Both documents of every pair in one packed row; ``owners`` is which document each counted token belongs to."""
    documents = [document for pair in pairs for document in (pair.chosen, pair.rejected)]
    answered = torch.tensor([document.counted for document in documents])
    tensors = {
        **pack(documents),
        "owners": torch.arange(len(documents)).repeat_interleave(answered),
        "reference": torch.tensor([pair.reference or (0.0, 0.0) for pair in pairs]),
    }
    return MicroBatch(tensors, sum(map(len, documents)))
