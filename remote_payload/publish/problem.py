"""Why something is not published."""

from __future__ import annotations

from typing import Literal

Kind = Literal["input", "refused", "unreachable"]


class PublishProblem(ValueError):
    """What happened, what it means, and what to do next. ``kind``: what was asked for is wrong, the Hub refuses, it was not reached."""

    def __init__(
        self, message: str, *, kind: Kind = "input", meaning: str = "Nothing was published.", hint: str = ""
    ) -> None:
        super().__init__(message)
        self.message, self.kind, self.meaning, self.hint = message, kind, meaning, hint
