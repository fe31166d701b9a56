"""Verb ``clean``: lists what gpurun may delete on a box, with its size, and deletes it unless it is a dry run.

A run that is not over is never deleted. Outputs and a log that may not have been fetched are deleted only when the request names the run.
Data, environments, payloads and agents are deleted once no remaining run refers to them. Anything younger than an hour may belong
to a submission that is under way, and stays.
"""

import functools
import os
import posixpath
import re
import shutil
import time
from typing import TYPE_CHECKING, Callable, Iterator, List, NamedTuple, Optional, Set

from remote_payload.agent.box import locks, processes
from remote_payload.agent.box.files import disk_usage
from remote_payload.agent.box.snapshot import runs_newest_first
from remote_payload.agent.run import alive, state
from remote_payload.agent.run.slurm import files as slurm_files
from remote_payload.agent.verbs import seal
from remote_payload.agent.wire.paths import KEY, SHA256, BoxPaths, RunPaths, volatile_folder
from remote_payload.agent.wire.request import Request

if TYPE_CHECKING:
    from remote_payload.agent.wire.answers import Cleaned

YOUNG = 3600.0  # seconds
REMOVED = ".removed-"  # prefix of a path that is being deleted
HALF = re.compile(r".*\.(partial|tmp|changed)(-.*)?|\.removed-.*")
AGENT = re.compile(r"[0-9a-f]{64}(\.pyz)?")  # and unpacked
MAX_READ = 16 << 20
NEW = "it is new: a submission may be under way"


class Item(NamedTuple):
    """One path of gpurun's on the box: why it stays (None if it may be deleted), and how it is deleted."""

    path: str
    why: Optional[str]
    remove: Callable[[], None]


def clean(request: Request) -> "Cleaned":
    """``{removed: [{path, bytes}], kept: [{path, bytes, why}]}``, paths relative to the root; progress ``{line}``.

    A dry run, which is assumed unless ``dry_run`` is false, lists as ``removed`` what would be deleted. Runs with outputs or a log are
    deleted when they are in ``run_ids`` (named) or ``fetched`` (home and verified). ``everything`` also deletes what a later run could
    use again: data, environments and caches that no run uses now. A path that could not be deleted is ``kept``.
    """
    asked = request.fields("UnknownRun")
    dry_run, everything = asked.flag("dry_run", default=True), asked.flag("everything")
    may_go = {*asked.run_ids("run_ids"), *asked.run_ids("fetched")}
    answer: "Cleaned" = {"removed": [], "kept": []}
    for item in _items(request.paths, may_go, everything):
        if request.cancelled.is_set():
            break
        path = posixpath.relpath(item.path, request.paths.root)
        size, why = disk_usage(item.path), item.why
        if why is None and not dry_run:
            request.progress({"line": path})
            try:
                item.remove()
            except OSError as error:
                why = "it could not be deleted: %s" % (error.strerror or error)
        if why is None:
            answer["removed"].append({"path": path, "bytes": size})
        else:
            answer["kept"].append({"path": path, "bytes": size, "why": why})
    return answer


def _items(paths: BoxPaths, may_go: Set[str], everything: bool) -> Iterator[Item]:
    """Everything of gpurun's on the box, runs first: the others stay while a remaining run refers to them."""
    box = alive.Box()
    runs = runs_newest_first(paths)
    going = [run for run in runs if _is_going(run, box)]
    staying = list(going)
    for run in runs:
        why = "it is not over" if run in going else _why_run_stays(run, box, run.run_id in may_go)
        if why:
            staying.append(run)
        yield Item(run.folder, why, functools.partial(_remove_run, run))
    yield from _leftovers(paths)
    yield from _shared(paths, _References(paths, going if everything else staying))
    yield from _agents(paths, [_read(slurm_files.script(run)) for run in going if slurm_files.is_slurm(run)])
    for name in ("uv", "pip", "hf", "tokens") if everything else ():
        path = posixpath.join(paths.root, "cache", name)
        if os.path.isdir(path):
            yield Item(path, _why_stays(path, bool(going)), functools.partial(_remove, path))


def _is_going(run: RunPaths, box: alive.Box) -> bool:
    return state.status_of(run, box)["phase"] != "finished" or alive.is_supervised(run, box)


def _why_run_stays(run: RunPaths, box: alive.Box, may_go: bool) -> Optional[str]:
    if alive.of(run, box).anything:
        return "processes of it are left: gpurun stop ends them"
    if not may_go and any(files for _, _, files in os.walk(run.outputs)):
        return "its outputs may not be home: gpurun done, or name the run"
    if not may_go and state.log_identity(run.log)[0]:
        return "its log may not be home: gpurun done, or name the run"
    return None


def _shared(paths: BoxPaths, used: "_References") -> Iterator[Item]:
    """Data, environments and payloads."""
    for path in _inside(paths.root, "data", KEY):
        forget = functools.partial(seal.forget_data, paths, posixpath.basename(path))
        yield Item(path, _why_stays(path, posixpath.basename(path) in used.data), forget)
    for folder, pattern in (("envs", KEY), ("payload", SHA256)):
        for path in _inside(paths.root, folder, pattern):
            yield Item(path, _why_stays(path, used.mention(path)), functools.partial(_remove, path))


def _agents(paths: BoxPaths, scripts: List[str]) -> Iterator[Item]:
    """Other versions' agents; a supervisor goes on reading its own, and a Slurm job is started with the one that its script names."""
    commands = scripts + [_read("/proc/%d/cmdline" % pid) for pid in processes.scan()]
    for path in _inside(paths.root, "agent", AGENT):
        version = path[: -len(".pyz")] if path.endswith(".pyz") else path
        used = __file__.startswith(version) or any(version in command for command in commands)
        yield Item(path, _why_stays(path, used), functools.partial(_remove, path))


def _leftovers(paths: BoxPaths) -> Iterator[Item]:
    """Paths without a final name: pushes, half-built environments, deletions that were interrupted."""
    found = _inside(paths.root, "incoming", re.compile(".*", re.DOTALL))
    for folder in ("envs", "payload", "data", "runs", "tools", "agent"):
        found += _inside(paths.root, folder, HALF)
    for path in found:
        removed = posixpath.basename(path).startswith(REMOVED)
        yield Item(path, NEW if _is_young(path) and not removed else None, functools.partial(_remove, path))


def _why_stays(path: str, used: bool) -> Optional[str]:
    return "a run uses it" if used else NEW if _is_young(path) else None


def _remove_run(run: RunPaths) -> None:
    lock = locks.take_run(run)
    if lock is None:
        raise OSError(0, "another process uses it")
    try:
        _remove(run.folder)
    finally:
        locks.drop(locks.run_lock(run), lock)
        shutil.rmtree(volatile_folder(run.run_id), ignore_errors=True)


class _References:
    """What the remaining runs refer to: targets of the links in their code, paths in their ``launch.json``."""

    def __init__(self, paths: BoxPaths, runs: List[RunPaths]) -> None:
        self.data: Set[str] = set()
        self._launches = [_read(run.launch) for run in runs]
        prefix = paths.data("")
        for target in (target for run in runs for target in _links(run.code)):
            if target.startswith(prefix):
                self.data.add(target[len(prefix) :].split("/")[0])

    def mention(self, path: str) -> bool:
        """Whether the launch of one names ``path`` or something in it."""
        return any(re.search(re.escape(path) + r"[/:\"]", launch) for launch in self._launches)


def _remove(path: str) -> None:
    """Removes a folder or file, after a rename: where the deletion is interrupted, no half of it keeps the old name."""
    folder, name = posixpath.split(path)
    if not name.startswith(REMOVED):
        hidden = posixpath.join(folder, REMOVED + name)
        os.rename(path, hidden)
        path = hidden
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _is_young(path: str) -> bool:
    """Whether it was made, changed or renamed within the last hour."""
    newest = 0.0
    for place in (path, *_inside(path, "", re.compile(".*", re.DOTALL))[:1000]):
        try:
            found = os.lstat(place)
        except OSError:
            continue
        newest = max(newest, found.st_ctime, found.st_mtime)
    return time.time() - newest < YOUNG


def _inside(root: str, folder: str, pattern: "re.Pattern[str]") -> List[str]:
    """The paths in ``folder`` whose names match the whole pattern."""
    place = posixpath.join(root, folder)
    try:
        names = sorted(os.listdir(place))
    except OSError:
        return []
    if pattern is KEY:
        names = [name for name in names if not HALF.fullmatch(name)]  # some match KEY too
    return [posixpath.join(place, name) for name in names if pattern.fullmatch(name)]


def _links(tree: str) -> Iterator[str]:
    for folder, folders, files in os.walk(tree):
        for name in folders + files:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                yield os.readlink(path)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(MAX_READ)
    except OSError:
        return ""
