"""What was published, or would be, as plain data: printed by the box, read by the laptop. It needs no library."""

from __future__ import annotations

from dataclasses import dataclass

REPOSITORY = r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}"  # a name on the Hub


@dataclass(frozen=True)
class FileReport:
    """A file of the publication; ``state`` beside what was there: ``new``, ``same`` or ``differs``."""

    path: str
    size: int
    state: str


@dataclass(frozen=True)
class LeftOut:
    """A file that is not published, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class PublishReport:
    """``commit`` is None where nothing was uploaded; ``removed`` are files there that would load as part of another model."""

    repository: str
    private: bool
    commit: str | None
    files: tuple[FileReport, ...]
    removed: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    base: str | None
    licence: str
    remarks: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def conflicts(self) -> bool:
        """Whether the repository has other content."""
        return bool(self.removed) or any(file.state == "differs" for file in self.files)

    @property
    def nothing_to_do(self) -> bool:
        """Whether all of it was there already."""
        return not self.removed and all(file.state == "same" for file in self.files)
