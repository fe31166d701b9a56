"""Fills a run's folder: the pushed code, links to data and outputs, and for a resumed run the outputs of the earlier one."""

from __future__ import annotations

import errno
import fcntl
import os
import posixpath
import shutil
from typing import TYPE_CHECKING, Callable, Collection, Iterable, List, Optional

from remote_payload.agent.box import incoming, snapshot
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import KEY, BoxPaths, RunPaths, check_run_id

if TYPE_CHECKING:
    from remote_payload.agent.wire.launch_request import Code, DataLink
    from remote_payload.agent.wire.marks import Expected

LINKED = ".safetensors"  # written once and renamed into place: two runs may share one
NOT_INHERITED = "logs"  # a resumed run writes its own
FICLONE = 0x40049409  # ioctl of linux/fs.h
NO_ROOM = (
    "the disk of the box has no room for a copy of the outputs that the new run goes on from",
    "Free some space there: gpurun clean shows what it may delete.",
)


def take_code(paths: BoxPaths, run: RunPaths, code: Code) -> None:
    """Puts the pushed code in place: by rename of the attempt that ``incoming`` names, or by hard links from an earlier run.

    Raises AgentError PushDiffers where it is not what the laptop sent (``marks``), TransferInterrupted where it is missing.
    """
    if code.incoming:
        pushed = _own_attempt(paths, run, code.incoming)
        if not os.path.isdir(pushed):
            raise AgentError(
                "TransferInterrupted",
                "the code did not arrive on the box",
                "Submit again: what arrived is not sent twice.",
            )
        os.rename(pushed, run.code)
        snapshot.record_code(run, code.digest, code.read_at)
    elif code.link_from:
        try:
            snapshot.link_code(paths.run(check_run_id(code.link_from)), run, code.without or ())
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESTALE):
                raise
            message = "the code of run %s has changed since it was offered" % code.link_from
            raise AgentError("PushDiffers", message) from None
        if code.without is not None:
            return
    else:
        os.mkdir(run.code, 0o700)
        return snapshot.record_code(run, "")
    must_match(run.code, code.expected, "the code")


def must_match(tree: str, expected: Expected, what: str) -> None:
    """Raises AgentError PushDiffers where ``tree`` is not what the laptop sent."""
    if snapshot.fingerprint(tree, expected.contents, expected.permissions) != expected.marks:
        raise AgentError("PushDiffers", "%s that arrived on the box is not what lies here" % what)


def give_code_back(paths: BoxPaths, run: RunPaths, code: Code) -> None:
    """After a launch that failed: the pushed code lies in ``incoming/`` again, for the next try."""
    if code.incoming and os.path.isdir(run.code):
        back = _own_attempt(paths, run, code.incoming)
        os.makedirs(os.path.dirname(back), 0o700, exist_ok=True)
        os.rename(run.code, back)


def _own_attempt(paths: BoxPaths, run: RunPaths, written: str) -> str:
    name, attempt = incoming.split(written)
    if name != run.run_id:
        raise AgentError("LaunchError", "the code of %s was pushed for another run" % run.run_id)
    return paths.incoming(name + "/" + attempt)


def link_data(paths: BoxPaths, run: RunPaths, data: Iterable[DataLink]) -> None:
    """Makes all data appear in the code, as links to ``data/<key>`` or to the one file in there."""
    for entry in data:
        if not KEY.fullmatch(entry.key):
            raise AgentError("LaunchError", "unusable data key %r" % entry.key)
        member = entry.member
        if member is not None and ("/" in member or not _stays_inside(member)):
            raise AgentError("LaunchError", "unusable data file %r" % member)
        source = os.path.join(paths.data(entry.key), member) if member else paths.data(entry.key)
        if not os.path.exists(source):
            raise AgentError(
                "TransferInterrupted", "the data %s did not arrive on the box" % entry.path, "Submit again."
            )
        place = _place(run, entry.path)
        _clear(place)
        os.symlink(source, place)


def link_outputs(run: RunPaths, names: Iterable[str]) -> None:
    """Makes each output name in the code a link to ``outputs/<name>``. Files of the code in its place (a ``.gitkeep``) are copied."""
    os.makedirs(run.outputs, 0o700, exist_ok=True)
    for name in names:
        place = _place(run, name)
        target = os.path.join(run.outputs, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.isdir(place) and not os.path.islink(place):
            # Copies: the pushed files are shared with other runs.
            shutil.copytree(place, target, symlinks=True, dirs_exist_ok=True)
        if not posixpath.splitext(name)[1]:  # results.json is a file: the link waits for it to be written
            os.makedirs(target, exist_ok=True)
        _clear(place)
        os.symlink(target, place)


def gather_outputs(run: RunPaths, names: Iterable[str]) -> None:
    """After the end: where the payload replaced an output's link (by a rename, or a new folder), its content is moved to the outputs."""
    for name in names:
        place, target = os.path.join(run.code, name), os.path.join(run.outputs, name)
        if os.path.islink(place) or not os.path.lexists(place):
            continue
        if os.path.isdir(target) and os.path.isdir(place):
            shutil.copytree(place, target, symlinks=True, dirs_exist_ok=True)
        else:
            os.replace(place, target)


def inherit_outputs(source: RunPaths, run: RunPaths, share: bool, without: Collection[str] = ()) -> None:
    """A resumed run starts with the old one's outputs, but for its logs and ``without``: copies, so that no write changes the old ones.

    With ``share`` weights in folders that are complete by their own manifest, which nobody writes to in place, are hard links: 44 GB of
    checkpoints take no space and no time. Links into the old run's folder become links into the new one's.
    Raises AgentError where there are none, or the disk has no room for the copies.
    """
    if not os.path.isdir(source.outputs):
        raise AgentError("LaunchError", "run %s left no outputs to go on from" % source.run_id)

    def left_out(folder: str, names: List[str]) -> List[str]:
        below = os.path.relpath(folder, source.outputs)
        return [name for name in names if os.path.normpath(os.path.join(below, name)) in (NOT_INHERITED, *without)]

    take = taker(source.outputs, share)
    shutil.copytree(source.outputs, run.outputs, symlinks=True, ignore=left_out, copy_function=take)
    _turn_links(source, run)


def taker(outputs: str, share: bool) -> Callable[[str, str], str]:
    """What copies a file of ``outputs`` to a new path, for ``shutil.copytree``. With ``share`` weights in complete folders are linked.

    Raises AgentError where the disk has no room for it.
    """

    def take(old: str, new: str) -> str:
        try:
            if not (share and old.endswith(LINKED) and is_complete(outputs, old) and _link(old, new)):
                copy_apart(old, new)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # stop at once: copytree would go on with the other files
                raise AgentError("BoxNotReady", *NO_ROOM) from None
            raise
        return new

    return take


def is_complete(outputs: str, file: str) -> bool:
    """Whether the file lies in a folder that has its manifest, which is written last. A folder is written with a slash at its end."""
    folder = os.path.dirname(file)
    while len(folder) > len(outputs):
        if os.path.exists(os.path.join(folder, "manifest.json")):
            return True
        folder = os.path.dirname(folder)
    return False


def _turn_links(source: RunPaths, run: RunPaths) -> None:
    """Links in the new run's outputs that lead into the old run's folder are turned to the new one's: a write would change the old."""
    for folder, folders, names in os.walk(run.outputs):
        for path in (os.path.join(folder, name) for name in (*folders, *names)):
            target = os.readlink(path) if os.path.islink(path) else ""
            for old in (source.folder, os.path.realpath(source.folder)):
                if target == old or target.startswith(old + "/"):
                    os.unlink(path)
                    os.symlink(run.folder + target[len(old) :], path)
                    break


def take_outputs(paths: BoxPaths, run: RunPaths, key: str) -> None:
    """A run that goes on from another box begins with the outputs that the laptop pushed and sealed as the data ``key``."""
    if not KEY.fullmatch(key):
        raise AgentError("LaunchError", "unusable data key %r" % key)
    try:
        os.rename(paths.data(key), run.outputs)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        message = "the outputs to go on from did not arrive on the box"
        raise AgentError("TransferInterrupted", message, "Resume again: what arrived is not sent twice.") from None
    os.chmod(run.outputs, 0o700)


def give_outputs_back(paths: BoxPaths, run: RunPaths, key: str) -> None:
    """After a launch that failed: the pushed outputs are data again, for the next try."""
    if os.path.isdir(run.outputs) and not os.path.lexists(paths.data(key)):
        os.rename(run.outputs, paths.data(key))


def copy_apart(old: str, new: str) -> None:
    """A copy of the file that shares no data a write could change: cloned where the filesystem can, else copied. Raises OSError."""
    if os.path.islink(old) or not _clone(old, new):
        shutil.copy2(old, new, follow_symlinks=False)


def _clone(old: str, new: str) -> bool:
    """Whether the filesystem (XFS, Btrfs and others) has made a clone, which takes no space and no time."""
    with open(old, "rb") as source, open(new, "wb") as target:
        try:
            fcntl.ioctl(target.fileno(), FICLONE, source.fileno())
        except OSError:
            return False
    shutil.copystat(old, new)
    return True


def _link(old: str, new: str) -> bool:
    try:
        os.link(old, new)
        return True
    except OSError:  # no hard links on this filesystem
        return False


def _place(run: RunPaths, name: Optional[str]) -> str:
    """A relative path in the code as an absolute one, its parent folders made. Raises AgentError when it leads out of the code."""
    if name is None or not _stays_inside(name):
        raise AgentError("LaunchError", "unusable path in the job: %r" % (name,))
    place = os.path.normpath(os.path.join(run.code, name))
    parent = os.path.dirname(place)
    os.makedirs(parent, exist_ok=True)
    code = os.path.realpath(run.code)
    if os.path.commonpath([os.path.realpath(parent), code]) != code:
        raise AgentError("LaunchError", "%r leads out of the code through a link" % name)
    return place


def _stays_inside(name: str) -> bool:
    parts = posixpath.normpath(name).split("/") if name else [".."]
    return "\0" not in name and not name.startswith("/") and ".." not in name.split("/") and parts != ["."]


def _clear(place: str) -> None:
    if os.path.isdir(place) and not os.path.islink(place):
        shutil.rmtree(place)
    elif os.path.lexists(place):
        os.unlink(place)


def offer_python(run: RunPaths, interpreter: Optional[str], path: str) -> str:
    """``path`` (PATH), with a folder at its end in which ``python`` is the run's interpreter, where nothing in ``path`` has that name.

    Debian has only ``python3``, and scripts say ``#!/usr/bin/env python`` or call ``python`` in a shell.
    """
    if not interpreter or shutil.which("python", path=path):
        return path
    folder = os.path.join(run.folder, "bin")
    os.makedirs(folder, 0o700, exist_ok=True)
    os.symlink(interpreter, os.path.join(folder, "python"))
    return "%s:%s" % (path, folder)
