"""A summary of what would be sent: the largest items, and why other files are left out. ``cli/`` prints it."""

from __future__ import annotations

from dataclasses import dataclass

from runner.push.selection import LeftOut, Selection


@dataclass(frozen=True)
class Item:
    """A file, or a folder (its path ends in ``/``) with all of it that is sent."""

    path: str
    bytes: int
    files: int


@dataclass(frozen=True)
class Preview:
    """``folders`` are the largest items at the top, ``files`` the largest files anywhere, ``left_out`` the largest and every secret."""

    root: str
    bytes: int
    count: int
    folders: list[Item]
    files: list[Item]
    left_out: list[LeftOut]
    left_out_count: int


def preview(selection: Selection, most: int = 8) -> Preview:
    """The ``most`` largest of each."""
    tops: dict[str, tuple[int, int]] = {}
    for entry in selection.files:
        top, slash, _ = entry.path.partition("/")
        size, count = tops.get(top + slash, (0, 0))
        tops[top + slash] = (size + entry.size, count + 1)
    folders = sorted((Item(path, size, count) for path, (size, count) in tops.items()), key=_largest)
    files = sorted((Item(entry.path, entry.size, 1) for entry in selection.files), key=_largest)
    secrets = [left for left in selection.left_out if is_secret(left)]
    others = sorted((left for left in selection.left_out if not is_secret(left)), key=_largest)
    return Preview(
        root=str(selection.root),
        bytes=selection.total_bytes,
        count=len(selection.files),
        folders=folders[:most],
        files=files[:most],
        left_out=secrets + others[:most],
        left_out_count=len(selection.left_out),
    )


def is_secret(left: LeftOut) -> bool:
    """Whether it was left out because it is, or holds, a secret."""
    return left.reason == "credentials by name" or left.reason.endswith(" inside")


def _largest(item: Item | LeftOut) -> tuple[int, str]:
    return (-item.bytes, item.path)
