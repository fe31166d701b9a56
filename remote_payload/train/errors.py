"""The errors that end a run with one line instead of a traceback. ``run.launch`` prints the line and picks the exit code."""

from __future__ import annotations


class InputError(Exception):
    """Data, settings or a model that cannot be used; the message names the file and line, or the setting. Exit code 2."""


class UnusableModel(InputError):
    """A model that is missing or cannot be loaded, and the reason. In a job it is the one that ``settings.model`` names; who loads another
    says which."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"settings.model: {reason}")
        self.reason = reason


class TrainingError(Exception):
    """The run cannot go on: a loss that is NaN, a row that does not fit in memory, a full disk. Exit code 1."""


class Stopped(Exception):
    """A signal asked the run to end, and it has saved a checkpoint. Exit code 128 + the signal's number."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
