"""What ends a run in a sentence rather than in a traceback. ``run.launch`` prints it and picks the exit code."""

from __future__ import annotations


class InputError(Exception):
    """Data, settings or a model that cannot be used as they are; the message names the file and line, or the setting. Exit 2."""


class TrainingError(Exception):
    """The run cannot go on: a loss that is NaN, a row that does not fit in memory, a full disk. Exit 1."""


class Stopped(Exception):
    """Somebody asked the run to end and it has saved a checkpoint. Exit 128 + the signal's number."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
