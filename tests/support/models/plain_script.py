"""What the author of a report would write himself: an adapter measured with transformers and peft alone, one prompt at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


@dataclass(frozen=True)
class Score:
    """Means over the rows, and the mean loss of a token of the answers."""

    answers: list[str]
    json_exact: float
    field_f1: float
    loss: float


def score(base: Path, adapter: Path | None, asked: Sequence[tuple[str, Any]], new_tokens: int) -> Score:
    """The greedy answers to the prompts, beside what they should be."""
    model = AutoModelForCausalLM.from_pretrained(base)
    model = (PeftModel.from_pretrained(model, adapter) if adapter else model).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    answers, losses, tokens = [], 0.0, 0
    for prompt, wanted in asked:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            output = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new_tokens,
                do_sample=False,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
            answers.append(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))
            answer = tokenizer(_text(wanted), add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
            whole = torch.cat([ids, torch.tensor([answer])], dim=1)
            logits = model(input_ids=whole).logits[0, ids.shape[1] - 1 : -1]
        losses += float(torch.nn.functional.cross_entropy(logits.double(), torch.tensor(answer), reduction="sum"))
        tokens += len(answer)
    pairs = [(_parsed(answer), wanted) for answer, (_, wanted) in zip(answers, asked, strict=True)]
    exact = [float(found == wanted) for found, wanted in pairs]
    return Score(answers, sum(exact) / len(exact), sum(map(_f1, pairs)) / len(pairs), losses / tokens)


def _text(wanted: Any) -> str:
    return wanted if isinstance(wanted, str) else json.dumps(wanted, ensure_ascii=False)


def _parsed(answer: str) -> Any:
    try:
        return json.loads(answer)
    except ValueError:
        return None


def _f1(pair: tuple[Any, Any]) -> float:
    found, wanted = ({f"{key}={value}" for key, value in (each or {}).items()} for each in pair)
    return 2 * len(found & wanted) / (len(found) + len(wanted)) if found or wanted else 0.0
