"""The interface through which workflows report progress. ``runner/cli/render.py`` implements it for terminals and files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Stage(Protocol):
    """One named step under way."""

    def update(self, done: float | None = None, total: float | None = None, note: str | None = None) -> None:
        """Progress in the stage's unit (bytes for a transfer); ``note`` replaces the text beside the bar."""


class Reporter(Protocol):
    """Where a workflow reports. All of it goes to stderr; stdout belongs to results."""

    def stage(self, title: str, unit: str = "") -> AbstractContextManager[Stage]:
        """Opens a stage; leaving the ``with`` block prints its elapsed time, or that it failed."""

    def note(self, text: str) -> None:
        """One line that stays."""

    def warn(self, text: str) -> None:
        """A warning, one line that stays."""


class Silent:
    """A reporter that prints nothing: for ``--json``, and tests."""

    @contextmanager
    def stage(self, title: str, unit: str = "") -> Iterator[Stage]:
        yield self

    def update(self, done: float | None = None, total: float | None = None, note: str | None = None) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass


class Prefixed:
    """Another reporter whose lines begin with a text, such as the name of one of several hosts."""

    def __init__(self, report: Reporter, prefix: str) -> None:
        self._report, self._prefix = report, prefix

    def stage(self, title: str, unit: str = "") -> AbstractContextManager[Stage]:
        return self._report.stage(self._prefix + title, unit)

    def note(self, text: str) -> None:
        self._report.note(self._prefix + text)

    def warn(self, text: str) -> None:
        self._report.warn(self._prefix + text)
