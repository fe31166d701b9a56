"""Held-out examples that are in the training data too: their figures show memory, not skill."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from remote_payload.train.run import Run


def flag_repetitions(run: Run, train: Iterable[str], **held_out: Iterable[str]) -> None:
    """Raises a flag for each side (``validation=…``) of which some texts are in ``train``, with how many of how many."""
    seen = {_normal(text) for text in train}
    for name, texts in held_out.items():
        own = [_normal(text) for text in texts]
        again = sum(text in seen for text in own)
        if again:
            run.telemetry.flag(
                f"{name}_in_training",
                f"{again:,} of {len(own):,} {name} examples are in train too, but for case and spaces: "
                "their figures are better than those of new examples will be",
            )


def _normal(text: str) -> str:
    """The text without differences of case, spaces and Unicode forms of a character."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
