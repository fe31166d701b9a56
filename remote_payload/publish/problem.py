"""Why something is not published."""

from __future__ import annotations


class PublishProblem(ValueError):
    """What happened, what it means, and what to do next; nothing was uploaded."""

    def __init__(self, message: str, *, meaning: str = "Nothing was published.", hint: str = "") -> None:
        super().__init__(message)
        self.message, self.meaning, self.hint = message, meaning, hint
