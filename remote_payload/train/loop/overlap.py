"""Held-out examples that are in the training data too: of those a model is asked what it remembers, not what it can do."""

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
    """What is left of a text when case, spaces and forms of the same character make no difference."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
