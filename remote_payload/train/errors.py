"""What a user did wrong, as one sentence; ``run.py`` prints it without a traceback and ends with exit code 2."""

from __future__ import annotations


class BadInput(Exception):
    """The job file or the data cannot be used as they are; the text names the place and what to change."""


def bad_setting(name: str, problem: str) -> BadInput:
    """``settings.NAME: problem``, the form in which every complaint about a setting is made."""
    return BadInput(f"settings.{name}: {problem}")
