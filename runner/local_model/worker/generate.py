"""Generates after each prompt, always the most probable token, and compares with what the box generated."""

from __future__ import annotations

import time
from dataclasses import dataclass
from inspect import signature

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from remote_payload.train.data.chat import prompt_ids
from remote_payload.train.inference.target import end_tokens_of
from runner.local_model.messages import Measured, Predictions, Progress, RowDifference, Send, SmokeRequest
from runner.local_model.worker import Refused
from runner.local_model.worker.device import synchronize
from runner.local_model.worker.reference import (
    Input,
    check_finite,
    check_width,
    largest_difference,
    read_expected,
    read_inputs,
)

NEW_TOKENS = 32  # where there is no prediction of the box that says how many
SHOWN_TOKENS = 40


@dataclass(frozen=True)
class Continuation:
    """The tokens after a prompt (an end token is the last), and the logits ``[vocabulary]`` that each was chosen from."""

    tokens: list[int]
    logits: list[Tensor]


def generate(
    request: SmokeRequest, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: str, send: Send
) -> Predictions:
    """The texts, how fast they came, and how far they are from the box's. One prompt at a time, so that nothing is padded."""
    prompts = [_encode(tokenizer, row) for row in read_inputs(request)]
    expected = read_expected(request, len(prompts), "logits", "tokens")
    # As many tokens as on the box, where answers have ended already; without them, up to the model's end token.
    lengths = [NEW_TOKENS] * len(prompts)
    if expected is not None:
        lengths = [max(1, length) for length in (expected["tokens"] >= 0).sum(1).tolist()]
    ends = set(end_tokens_of(model, tokenizer)) if expected is None else set()
    answers: list[Continuation] = []
    with torch.inference_mode():
        _continue(model, prompts[0], 2, set(), device)
        synchronize(device)
        began = time.perf_counter()
        for prompt, length in zip(prompts, lengths, strict=True):
            answers.append(_continue(model, prompt, length, ends, device))
            send(Progress(done=len(answers), total=len(prompts)))
        seconds = time.perf_counter() - began
    return Predictions(
        samples=len(prompts),
        seconds=seconds,
        tokens=sum(len(answer.tokens) for answer in answers),
        texts=tuple(tokenizer.decode(answer.tokens[:SHOWN_TOKENS], skip_special_tokens=True) for answer in answers),
        comparison=None if expected is None else _compare(tokenizer, answers, expected),
    )


def _encode(tokenizer: PreTrainedTokenizerBase, row: Input) -> list[int]:
    ids = prompt_ids(tokenizer, row.text, row.add_special_tokens)
    if not ids:
        raise Refused("a prompt has no tokens")
    return list(ids)


def _continue(model: PreTrainedModel, prompt: list[int], new: int, ends: set[int], device: str) -> Continuation:
    """At most ``new`` tokens after the prompt."""
    ids, cache = torch.tensor([prompt], device=device), None
    tokens: list[int] = []
    logits: list[Tensor] = []
    only_last = _only_last(model)
    while len(tokens) < new and not (tokens and tokens[-1] in ends):
        output = model(input_ids=ids, past_key_values=cache, use_cache=True, **only_last)
        cache = output.past_key_values
        logits.append(output.logits[0, -1].float().cpu())
        tokens.append(int(logits[-1].argmax()))
        ids = torch.tensor([[tokens[-1]]], device=device)
    check_finite(torch.stack(logits), "this machine's predictions")
    return Continuation(tokens, logits)


def _only_last(model: PreTrainedModel) -> dict[str, int]:
    """The argument that keeps the logits of a prompt's last token alone, where the model takes it: else there is a vocabulary of
    logits for each token of the prompt."""
    network = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {"logits_to_keep": 1} if "logits_to_keep" in signature(network.forward).parameters else {}


def _compare(tokenizer: PreTrainedTokenizerBase, answers: list[Continuation], expected: dict[str, Tensor]) -> Measured:
    rows: list[RowDifference] = []
    agree = total = 0
    for answer, there, tokens in zip(answers, expected["logits"], expected["tokens"].tolist(), strict=True):
        check_width(answer.logits[0], there)
        wanted = [token for token in tokens if token >= 0]
        same = _common(answer.tokens, wanted)
        agree, total = agree + same, total + len(wanted)
        rows.append(_compare_row(tokenizer, answer, wanted, same, largest_difference(answer.logits[0], there)))
    return Measured(tuple(rows), float(expected["logits"].abs().max()), agree, total)


def _common(tokens: list[int], wanted: list[int]) -> int:
    """How many tokens are the same before the first that is not."""
    pairs = zip(tokens, wanted, strict=False)
    return next((at for at, (here, there) in enumerate(pairs) if here != there), min(len(tokens), len(wanted)))


def _compare_row(
    tokenizer: PreTrainedTokenizerBase, answer: Continuation, wanted: list[int], same: int, difference: float
) -> RowDifference:
    """The row's difference, and the first token that differs from the ``wanted`` ones: it follows ``same`` equal ones."""
    if same >= min(len(answer.tokens), len(wanted)):
        return RowDifference(difference, None)
    here, there, logits = answer.tokens[same], wanted[same], answer.logits[same]
    if there >= len(logits):
        raise Refused(f"the box predicted token {there}, and the vocabulary has {len(logits)}")
    gap = float(logits[here]) - float(logits[there])
    return RowDifference(difference, gap, ascii(tokenizer.decode([here])), ascii(tokenizer.decode([there])))
