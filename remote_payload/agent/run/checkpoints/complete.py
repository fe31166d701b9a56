"""What of a running program's outputs is complete.

The invariant: a file that is being written is never called complete. A unit (``forms.py``) is complete when all of this holds:

1. the file that shows its end, where its form or the job's rule has one, is there, and not older than what it is about;
2. nothing in it changed for the quiet time, by the clock of its own disk (times of change, which no program can set);
3. no process of the box has a file of it open for writing;
4. no file of it is cut off, where its format shows its end, and none has an unfinished name;
5. nothing of this changed while its files were hashed (``unchanged``).

One thing can deceive it: a file or folder without a visible end that is half-written and closed, and that nobody has written to for more
than the quiet time. For such a program the job names a longer time, or a file that it writes at the end.
"""

from __future__ import annotations

import os
import posixpath
from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple

from remote_payload.agent.box import open_files
from remote_payload.agent.box.files import disk_clock
from remote_payload.agent.run.checkpoints.endings import cut_off, is_unfinished
from remote_payload.agent.run.checkpoints.forms import Unit
from remote_payload.agent.run.checkpoints.rule import Rule

State = Dict[str, Tuple[int, ...]]  # of each file and folder of a unit: what changes with every write


class Judged(NamedTuple):
    """A unit and ``why`` it is not complete (None: it is); ``state`` is what it was when it was judged."""

    unit: Unit
    why: Optional[str]
    state: State


def judge(outputs: str, units: Iterable[Unit], rule: Rule, is_running: bool = True) -> List[Judged]:
    """Each unit with the reason why it is not complete. Where the run is over nothing is being written, and only 1 and 4 count."""
    now = disk_clock(os.path.dirname(outputs)) if is_running else 0.0
    judged = [_judge_files(outputs, unit, rule, now if is_running else None) for unit in units]
    if not is_running:
        return judged
    files = {(each[0], each[1]): path for one in judged if one.why is None for path, each in one.state.items()}
    written = open_files.open_for_writing(files)
    return [
        one._replace(why="a process has it open for writing")
        if one.why is None and any((each[0], each[1]) in written for each in one.state.values())
        else one
        for one in judged
    ]


def unchanged(outputs: str, judged: Judged) -> bool:
    """Whether a unit is as it was when it was judged, and is not open for writing: to be asked after its files were read."""
    state = _state(outputs, judged.unit)
    files = {(each[0], each[1]): path for path, each in state.items()}
    return state == judged.state and not open_files.open_for_writing(files)


def _judge_files(outputs: str, unit: Unit, rule: Rule, now: Optional[float]) -> Judged:
    state = _state(outputs, unit)
    end = _end_is_missing(outputs, unit, rule, state)
    if end is not None:
        return Judged(unit, end, state)
    if now is not None and state:
        since = max(
            0.0, now - max(each[-1] for each in state.values()) / 1e9
        )  # one file's time may be finer than another's
        if since < rule.quiet:
            why = "it changed %d s ago, and is complete after %g s without a change" % (since, rule.quiet)
            return Judged(unit, why, state)
    return Judged(unit, _damage(outputs, unit, state), state)


def _end_is_missing(outputs: str, unit: Unit, rule: Rule, state: State) -> Optional[str]:
    """Why the file that shows the end of the unit does not show it, None where it does, or none is needed.

    A program that writes a checkpoint again in the same folder leaves the old one there at first: it has to be the newest.
    """
    marker = unit.needs(rule)
    if marker is None:
        return None
    name = posixpath.basename(marker)
    try:
        at = os.stat(os.path.join(outputs, marker)).st_mtime_ns
    except OSError:
        return "there is no %s" % name
    if any(path in state and state[path][3] > at for path in unit.files if unit.precedes(path, rule)):
        return "%s is older than other files of it" % name
    return None


def _damage(outputs: str, unit: Unit, state: State) -> Optional[str]:
    if not all(path in state for path in unit.files):
        return "files of it were removed meanwhile"
    if not unit.is_folder and state[unit.path][2] == 0:
        return "it is empty"  # opened to be written, as a rule
    for path in state:
        if path != unit.path and is_unfinished(posixpath.basename(path)):
            return "%s is not finished" % posixpath.basename(path)
    for path in unit.files:
        try:
            why = cut_off(os.path.join(outputs, path))
        except OSError as error:
            why = error.strerror or "it cannot be read"
        if why:
            return "%s: %s" % (posixpath.basename(path), why)
    return None


def _state(outputs: str, unit: Unit) -> State:
    """Device, inode, size, time of the last write and of the last change (nanoseconds) of all that belongs to the unit, by path."""
    found: State = {}
    pending = [unit.path]
    while pending:
        path = pending.pop()
        whole = os.path.join(outputs, path)
        try:
            status = os.lstat(whole)
            found[path] = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if unit.is_folder and os.path.isdir(whole) and not os.path.islink(whole):
                pending += [posixpath.join(path, name) for name in os.listdir(whole)]
        except OSError:  # removed meanwhile
            continue
    return found
