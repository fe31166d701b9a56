"""Whether an answer is one of several right ones."""

from __future__ import annotations

from collections.abc import Sequence

from remote_payload.train.evaluation.text_metrics import Words

WORDS = Words()


def is_right(answer: str, right: Sequence[str]) -> bool:
    """Whether the answer has the same words as one of the right ones: capitals, punctuation and spaces do not matter.

    A right answer without a single word (``42 %`` has one, ``!`` has none) must be met exactly, apart from spaces around it.
    """
    return any(_equal(answer, each) for each in right)


def contains_right(answer: str, right: Sequence[str]) -> bool:
    """Whether the words of one of the right answers stand in the answer, one after the other."""
    words = WORDS.tokenize(answer)
    return any(_equal(answer, each) or _stands_in(WORDS.tokenize(each), words) for each in right)


def _equal(answer: str, right: str) -> bool:
    words = WORDS.tokenize(right)
    return WORDS.tokenize(answer) == words if words else answer.strip() == right.strip()


def _stands_in(part: list[str], whole: list[str]) -> bool:
    return bool(part) and any(whole[at : at + len(part)] == part for at in range(len(whole) - len(part) + 1))
