"""Which files of a folder are sent, and for each of the others why not."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from runner.domain.job import Job
from runner.push.ignored import ignored_by_git, matching
from runner.push.secrets import secret_inside, secret_name

_CLUTTER = {
    ".git": "version control", ".hg": "version control", ".svn": "version control", ".jj": "version control",
    "__pycache__": "a cache", ".mypy_cache": "a cache", ".ruff_cache": "a cache", ".pytest_cache": "a cache", ".cache": "a cache",
    ".hypothesis": "a cache", ".ipynb_checkpoints": "a cache", ".tox": "a cache", ".nox": "a cache", ".eggs": "a cache",
    "node_modules": "installed packages", ".direnv": "installed packages", ".DS_Store": "of the desktop",
}  # fmt: skip
OWN_OUTPUT = "gpurun's own output"
LINK_OUT = "a link that leaves the folder"
UNREADABLE = "cannot be read"
UNREADABLE_FOLDER = "a folder that cannot be read"
_MEASURED = 20_000  # entries looked at to say how large the folders are that are left out


@dataclass(frozen=True)
class Entry:
    """A file or link that is sent. ``path`` is relative with ``/``; bytes that are no UTF-8 are surrogate-escaped (``os.fsencode``)."""

    path: str
    size: int
    mtime_ns: int
    mode: int
    kind: str  # "file" or "link"
    target: str = ""


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not sent, and what it holds: at least that, where it is not ``measured`` to the end."""

    path: str
    reason: str
    bytes: int
    files: int
    measured: bool = True


@dataclass(frozen=True)
class Selection:
    """What is sent from ``root``, in the order of paths. A folder is made for the files in it; an empty one is not sent."""

    root: Path
    files: list[Entry]
    left_out: list[LeftOut]
    folders: dict[str, int] = field(default_factory=dict)  # that were read → their time of change (ns) before

    @property
    def total_bytes(self) -> int:
        return sum(entry.size for entry in self.files)

    def files_from(self) -> bytes:
        """The list for ``rsync --files-from=- --from0``, which takes a name that begins with ``#`` or ``;`` for a comment: hence ``./``."""
        return b"".join(b"./" + os.fsencode(entry.path) + b"\0" for entry in self.files)


def select_code(job: Job, own_output: Iterable[str] = ()) -> Selection:
    """The code of a command job: what git keeps of the folder, less its data, outputs, excludes, caches and anything secret.

    ``code.include`` overrides all of that, file by file. ``own_output`` names files that gpurun's own output was seen to go to.
    Raises UserError when git is needed and cannot answer.
    """
    data = (*job.data_places, *job.run_outputs)
    elsewhere = dict.fromkeys(data, "sent as data") | dict.fromkeys(job.outputs or (), "an output")
    rules = _CodeRules(job.folder, elsewhere)
    walk = _Walk(job.folder, rules.reason, rules.enter, own_output=frozenset(own_output))
    walk.run()
    for path in sorted(matching(job.code.exclude, walk.kept)):
        walk.leave_out_file(path, "excluded in the job file")
    walk.check_readable()
    walk.check_contents()
    walk.include(map(_normal, job.code.include))
    return walk.selection()


def select_data(job: Job, entry: str, own_output: Iterable[str] = ()) -> Selection:
    """One of ``job.data_places``: everything in it but version control, links that leave it, and files with the names of credentials.

    .gitignore does not count, and texts are not searched for tokens: a corpus may well hold some. For a single file ``root`` is its folder.
    """
    root = job.data_places[entry]
    above = _normal(entry) + "/"
    included = [path[len(above) :] for path in map(_normal, job.code.include) if path.startswith(above)]
    if not root.is_dir():
        walk = _Walk(
            root.parent, _data_reason
        )  # the job names this file: it is sent even if gpurun's output goes to it
        walk.run(only=root.name)
        included = [root.name] if _normal(entry) in map(_normal, job.code.include) else []
    else:
        walk = _Walk(root, _data_reason, own_output=frozenset(own_output))
        walk.run()
    walk.include(included)
    walk.check_readable()
    return walk.selection()


def _normal(path: str) -> str:
    return os.path.normpath(path)


def _data_reason(path: str, name: str, is_folder: bool) -> str | None:
    return secret_name(name, is_folder) or ("version control" if _CLUTTER.get(name) == "version control" else None)


class _CodeRules:
    """Why a path of a code folder is left out, by name alone."""

    def __init__(self, root: Path, elsewhere: dict[str, str]) -> None:
        self.root = root
        self.elsewhere = elsewhere
        self.ignored: set[str] = set()

    def enter(self, path: str, names: set[str]) -> str | None:
        """Called with the names in a folder before its entries are judged; a reason leaves all of it out. Repositories ask git again."""
        if path and ("pyvenv.cfg" in names or "conda-meta" in names):
            return "a virtual environment"
        if not path or ".git" in names:
            above = path + "/" if path else ""
            # Where the repository ignores the whole folder, the answer is just "./". The job names that folder as code, so it is sent.
            self.ignored |= {above + ignored for ignored in ignored_by_git(self.root / path)}
        return None

    def reason(self, path: str, name: str, is_folder: bool) -> str | None:
        return (
            self.elsewhere.get(path)
            or secret_name(name, is_folder)
            or _CLUTTER.get(name)
            or ("installed packages" if name.endswith(".egg-info") else None)
            or ("ignored by git" if (path + "/" if is_folder else path) in self.ignored else None)
        )


Reason = Callable[[str, str, bool], "str | None"]
Enter = Callable[[str, "set[str]"], "str | None"]


@dataclass
class _Walk:
    """One pass over a folder; links are not followed. A file that is deleted meanwhile is skipped, and the push notices that."""

    root: Path
    reason: Reason
    enter: Enter = lambda path, names: None
    kept: dict[str, Entry] = field(default_factory=dict)
    left: dict[str, LeftOut] = field(default_factory=dict)
    folders: dict[str, int] = field(default_factory=dict)
    own_output: frozenset[str] = frozenset()
    streams: frozenset[tuple[int, int]] = field(default_factory=lambda: _streams())
    to_measure: int = _MEASURED

    def __post_init__(self) -> None:
        self.top = os.fspath(self.root)  # joining a Path for each of 20,000 files takes longer than looking at them

    def run(self, only: str | None = None) -> None:
        """Judges everything below the root, or the one entry ``only`` of it."""
        self.real_root = os.path.realpath(self.root)
        folders = [""]
        while folders:
            path = folders.pop()
            try:
                self.folders[path] = os.stat(self.root / path).st_mtime_ns
                with os.scandir(self.root / path) as scan:
                    found = [entry for entry in scan if only is None or entry.name == only]
            except OSError as error:
                if not (path and _is_gone(error)):
                    self.leave_out(path, f"{UNREADABLE_FOLDER}: {error.strerror}")
                continue
            why = self.enter(path, {entry.name for entry in found})
            if why is not None:
                self.leave_out(path, why)
                continue
            folders += self.judge(path + "/" if path else "", found)

    def judge(self, above: str, found: list[os.DirEntry[str]]) -> Iterator[str]:
        """Keeps or leaves out each entry of one folder; the folders to go on with."""
        for item in found:
            path, is_folder = above + item.name, item.is_dir(follow_symlinks=False)
            why = self.reason(path, item.name, is_folder)
            if why is not None:
                self.leave_out(path, why)
            elif is_folder:
                yield path
            else:
                self.keep(path)

    def keep(self, path: str) -> None:
        """Keeps a file, or a link that stays inside."""
        full = f"{self.top}/{path}"
        try:
            about = os.lstat(full)
            if path in self.own_output or (about.st_dev, about.st_ino) in self.streams:
                self.left[path] = LeftOut(path, OWN_OUTPUT, about.st_size, 1)
            elif stat.S_ISREG(about.st_mode):
                self.kept[path] = Entry(path, about.st_size, about.st_mtime_ns, about.st_mode & 0o777, "file")
            elif stat.S_ISLNK(about.st_mode):
                target = os.readlink(full)
                if self.leaves(full, target):
                    self.left[path] = LeftOut(path, LINK_OUT, 0, 1)
                else:
                    self.kept[path] = Entry(path, 0, about.st_mtime_ns, 0o777, "link", target)
            else:
                self.left[path] = LeftOut(path, "neither a file nor a folder", 0, 1)
        except OSError as error:
            if not _is_gone(error):
                self.left[path] = LeftOut(path, f"{UNREADABLE}: {error.strerror}", 0, 1)

    def leaves(self, full: str, target: str) -> bool:
        """Whether a link leaves the folder. An absolute target does, even one inside: on the box it is another place."""
        real = os.path.realpath(full)
        return os.path.isabs(target) or not (real == self.real_root or real.startswith(self.real_root + os.sep))

    def check_readable(self) -> None:
        """Leaves out files that this user may not read. Files that everybody may read are not checked: that saves time."""
        for path, entry in list(self.kept.items()):
            if entry.kind != "file" or entry.mode & 0o004:
                continue
            # One call both tells whether it may be read and whether it is there: between two it may come and go.
            try:
                os.close(os.open(f"{self.top}/{path}", os.O_RDONLY | os.O_NONBLOCK))
            except OSError as error:
                self.leave_out_file(path, None if _is_gone(error) else UNREADABLE)

    def check_contents(self) -> None:
        """Leaves out text files with a token or key in them, and what cannot be read."""
        for path, entry in list(self.kept.items()):
            if entry.kind != "file":
                continue
            try:
                why = secret_inside(f"{self.top}/{path}", entry.size)
            except OSError as error:
                why = f"{UNREADABLE}: {error.strerror}"
                if _is_gone(error):
                    self.leave_out_file(path, None)
                    continue
            if why is not None:
                self.leave_out_file(path, why)

    def include(self, paths: Iterable[str]) -> None:
        """Adds files that any rule has left out, but never links that leave the folder."""
        for path in paths:
            if path not in self.kept:
                self.left.pop(path, None)
                self.keep(path)
            if path not in self.kept and path not in self.left:
                self.left[path] = LeftOut(path, f"{UNREADABLE}: it is gone", 0, 1)

    def leave_out_file(self, path: str, why: str | None) -> None:
        """Takes a kept file out again; for no reason (None) where it is not there any more."""
        entry = self.kept.pop(path)
        if why is not None:
            self.left[path] = LeftOut(path, why, entry.size, 1)

    def leave_out(self, path: str, why: str) -> None:
        """Leaves out a file or a folder with all in it, and measures it within reason."""
        size = files = 0
        waiting = [os.path.join(self.root, path)]
        while waiting and self.to_measure > 0:
            self.to_measure -= 1
            full = waiting.pop()
            try:
                about = os.lstat(full)
                if stat.S_ISDIR(about.st_mode):
                    waiting += [entry.path for entry in os.scandir(full)]
                    continue
            except OSError:
                continue
            size, files = size + about.st_size, files + 1
        self.left[path] = LeftOut(path, why, size, files, measured=not waiting)

    def selection(self) -> Selection:
        kept = [self.kept[path] for path in sorted(self.kept)]
        return Selection(self.root, kept, [self.left[path] for path in sorted(self.left)], self.folders)


def _is_gone(error: OSError) -> bool:
    """Whether a file, or a folder above it, does not exist any more."""
    return isinstance(error, FileNotFoundError | NotADirectoryError)


def _streams() -> frozenset[tuple[int, int]]:
    """Device and inode of the files that standard output and standard error of this process go to."""
    found = set()
    for descriptor in (1, 2):
        try:
            about = os.fstat(descriptor)
        except OSError:  # closed
            continue
        if stat.S_ISREG(about.st_mode):
            found.add((about.st_dev, about.st_ino))
    return frozenset(found)
