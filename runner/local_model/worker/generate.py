"""What follows each prompt, the most probable token each time, beside what the box said; and the logits after the prompt."""

from __future__ import annotations

import time
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from remote_payload.train.data.chat import prompt_ids
from runner.local_model.worker import Refused
from runner.local_model.worker.device import synchronize
from runner.local_model.worker.reference import check_finite, check_width, read_expected, read_inputs

NEW_TOKENS = 32  # where the box said nothing
SHOWN_TOKENS = 40


@torch.inference_mode()
def generate(request: dict[str, Any], model: Any, tokenizer: Any, device: str, say: Any) -> dict[str, Any]:
    """The texts, how fast, and how far from the box's tokens and logits. One prompt at a time, so that padding is no matter."""
    prompts = [_encode(tokenizer, row) for row in read_inputs(request)]
    expected = read_expected(request, len(prompts), "logits", "tokens")
    # As many tokens as the box said, which ended its own answers; without it, to the model's end token.
    said = [] if expected is None else (expected["tokens"] >= 0).sum(1).tolist()
    ends = _end_tokens(model, tokenizer) if expected is None else set()
    _continue(model, prompts[0], 2, set(), device)
    synchronize(device)
    began, answers = time.perf_counter(), []
    for index, prompt in enumerate(prompts):
        answers.append(_continue(model, prompt, max(1, said[index]) if said else NEW_TOKENS, ends, device))
        say(done=len(answers), total=len(prompts))
    seconds = time.perf_counter() - began
    return {
        "samples": len(prompts),
        "seconds": seconds,
        "tokens": sum(len(tokens) for tokens, _ in answers),
        "texts": [tokenizer.decode(tokens[:SHOWN_TOKENS], skip_special_tokens=True) for tokens, _ in answers],
        "counts": None,
        "comparison": None if expected is None else _compare(tokenizer, answers, expected),
    }


def _encode(tokenizer: Any, row: dict[str, Any]) -> list[int]:
    ids = prompt_ids(tokenizer, row["prompt"], row.get("add_special_tokens", True) is True)
    if not ids:
        raise Refused("a prompt has no tokens")
    return list(ids)


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    several = configured if isinstance(configured, list) else [configured]
    return {token for token in (*several, tokenizer.eos_token_id) if token is not None}


def _continue(model: Any, prompt: list[int], new: int, ends: set[int], device: str) -> tuple[list[int], list[Tensor]]:
    """At most ``new`` tokens after the prompt (an end token is the last), and the logits that each was chosen from."""
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
    return tokens, logits


def _only_last(model: Any) -> dict[str, int]:
    """Keeps the logits of a prompt's last token only, where the model can: all of them are a vocabulary for each token."""
    network = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {"logits_to_keep": 1} if "logits_to_keep" in signature(network.forward).parameters else {}


def _compare(
    tokenizer: Any, answers: list[tuple[list[int], list[Tensor]]], expected: dict[str, Tensor]
) -> dict[str, Any]:
    rows, agree, total = [], 0, 0
    for (tokens, logits), there, said in zip(answers, expected["logits"], expected["tokens"].tolist(), strict=True):
        check_width(logits[0], there)
        wanted = [token for token in said if token >= 0]
        same = _common(tokens, wanted)
        agree, total = agree + same, total + len(wanted)
        difference = float((logits[0] - there).abs().max())
        rows.append({"difference": difference, **_divergence(tokenizer, tokens, logits, wanted, same)})
    return {"rows": rows, "scale": float(expected["logits"].abs().max()), "agree": agree, "answers": total}


def _common(tokens: list[int], wanted: list[int]) -> int:
    """How many tokens are the same before the first that is not."""
    pairs = zip(tokens, wanted, strict=False)
    return next((at for at, (here, there) in enumerate(pairs) if here != there), min(len(tokens), len(wanted)))


def _divergence(
    tokenizer: Any, tokens: list[int], logits: list[Tensor], wanted: list[int], same: int
) -> dict[str, Any]:
    """The first token that differs: both, and by how much the one chosen here won over the box's; nothing where all agree."""
    if same >= min(len(tokens), len(wanted)):
        return {"gap": None, "here": "", "there": ""}
    here, there = tokens[same], wanted[same]
    if there >= len(logits[same]):
        raise Refused(f"the box predicted token {there}, and the vocabulary has {len(logits[same])}")
    gap = float(logits[same][here] - logits[same][there])
    return {"gap": gap, "here": ascii(tokenizer.decode([here])), "there": ascii(tokenizer.decode([there]))}
