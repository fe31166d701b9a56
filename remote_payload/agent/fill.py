"""Fills a run's folder: the code it was pushed with, links to data and outputs, and what an earlier run left to go on from."""

import errno
import os
import posixpath
import shutil
from typing import Any, Dict, List, Optional

from remote_payload.agent import snapshot
from remote_payload.agent.paths import KEY, BoxPaths, RunPaths, check_run_id
from remote_payload.agent.request import AgentError

LINKED = ".safetensors"  # written once and renamed into place: two runs may share it
NOT_INHERITED = "logs"  # a resumed run writes its own


def take_code(paths: BoxPaths, run: RunPaths, code: Dict[str, Any]) -> None:
    """Puts the pushed code in place: by rename from ``incoming/<run id>/code``, or by hard links from an earlier run.

    Raises AgentError when it is not there (any more).
    """
    if code.get("incoming"):
        if not os.path.isdir(incoming(paths, run)):
            raise AgentError(
                "TransferInterrupted",
                "the code did not arrive on the box",
                "Submit again: what arrived is not sent twice.",
            )
        os.rename(incoming(paths, run), run.code)
        _remove_empty(os.path.dirname(incoming(paths, run)))
    elif code.get("link_from"):
        try:
            return snapshot.link_code(paths.run(check_run_id(code["link_from"])), run)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESTALE):
                raise
            raise AgentError(
                "TransferInterrupted", "the code of run %s is gone" % code["link_from"], "Submit again."
            ) from None
    else:
        os.mkdir(run.code, 0o700)
    snapshot.record_code(run, str(code.get("digest") or ""))


def give_code_back(paths: BoxPaths, run: RunPaths, code: Dict[str, Any]) -> None:
    """After a launch that did not come off: the pushed code lies in ``incoming/`` again, for the next try."""
    if code.get("incoming") and os.path.isdir(run.code):
        os.makedirs(os.path.dirname(incoming(paths, run)), 0o700, exist_ok=True)
        os.rename(run.code, incoming(paths, run))


def incoming(paths: BoxPaths, run: RunPaths) -> str:
    """Where a run's code is pushed to."""
    return paths.incoming(run.run_id + "/code")


def link_data(paths: BoxPaths, run: RunPaths, data: List[Dict[str, Any]]) -> None:
    """Makes each ``{path, key}`` appear at its own relative path in the code as a link to ``data/<key>``.

    ``member`` names the one file in there, for data that is a file rather than a folder.
    """
    for entry in data:
        key = entry.get("key")
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise AgentError("LaunchError", "unusable data key %r" % (key,))
        member = entry.get("member")
        if member is not None and (not isinstance(member, str) or "/" in member or not _stays_inside(member)):
            raise AgentError("LaunchError", "unusable data file %r" % (member,))
        source = os.path.join(paths.data(key), member) if member else paths.data(key)
        if not os.path.exists(source):
            raise AgentError(
                "TransferInterrupted", "the data %s did not arrive on the box" % entry.get("path"), "Submit again."
            )
        place = _place(run, entry.get("path"))
        _clear(place)
        os.symlink(source, place)


def link_outputs(run: RunPaths, names: List[Any]) -> None:
    """Makes each output name in the code a link to ``outputs/<name>``. What the code holds there (a ``.gitkeep``) comes along."""
    os.makedirs(run.outputs, 0o700, exist_ok=True)
    for name in names:
        place = _place(run, name)
        target = os.path.join(run.outputs, str(name))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.isdir(place) and not os.path.islink(place):
            # Copies: the pushed files are shared with other runs.
            shutil.copytree(place, target, symlinks=True, dirs_exist_ok=True)
        if not posixpath.splitext(str(name))[1]:  # results.json is a file: the link waits for it to be written
            os.makedirs(target, exist_ok=True)
        _clear(place)
        os.symlink(target, place)


def gather_outputs(run: RunPaths, names: List[Any]) -> None:
    """After the end: what the payload put in the place of an output's link (a rename over it, a folder made anew) is an output too."""
    for name in names:
        place, target = os.path.join(run.code, str(name)), os.path.join(run.outputs, str(name))
        if os.path.islink(place) or not os.path.lexists(place):
            continue
        if os.path.isdir(target) and os.path.isdir(place):
            shutil.copytree(place, target, symlinks=True, dirs_exist_ok=True)
        else:
            os.replace(place, target)


def inherit_outputs(source: RunPaths, run: RunPaths) -> None:
    """A resumed run starts with the old one's outputs: weights as hard links, the rest as copies, no logs."""
    if not os.path.isdir(source.outputs):
        raise AgentError("LaunchError", "run %s left no outputs to go on from" % source.run_id)

    def left_out(folder: str, names: List[str]) -> List[str]:
        return [NOT_INHERITED] if folder == source.outputs and NOT_INHERITED in names else []

    shutil.copytree(source.outputs, run.outputs, symlinks=True, ignore=left_out, copy_function=_link_weights)


def _link_weights(source: str, target: str) -> Optional[str]:
    if source.endswith(LINKED):
        try:
            os.link(source, target)
            return target
        except OSError:  # no hard links on this filesystem
            pass
    return str(shutil.copy2(source, target, follow_symlinks=False))


def _place(run: RunPaths, name: object) -> str:
    """A relative path in the code as an absolute one, its parents made. Raises AgentError when it leads out, by itself or by a link."""
    if not isinstance(name, str) or not _stays_inside(name):
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


def _remove_empty(folder: str) -> None:
    try:
        os.rmdir(folder)
    except OSError:
        pass
