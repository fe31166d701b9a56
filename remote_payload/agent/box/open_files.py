"""Which files a process of the box has open for writing, by the descriptors in /proc. Nothing is done to a process or a file.

A file lease (``F_SETLEASE``) would answer with one call a file, but a program that opens the file meanwhile would be held up by it.
"""

import os
import stat
from typing import Dict, Iterator, Set, Tuple

from remote_payload.agent.box.processes import PROC

Identity = Tuple[int, int]  # device and inode: what a file is, whatever its name


def open_for_writing(files: Dict[Identity, str], proc: str = PROC) -> Set[Identity]:
    """Those of ``files`` (identity → path) that a process has open for writing. Not seen are processes of other users, unless we are root.

    A file that was renamed while it is open is found too. One that is written through a mapping whose descriptor was closed is not.
    """
    names = {os.path.basename(path) for path in files.values()}
    found: Set[Identity] = set()
    for process in os.listdir(proc) if files else ():
        if process.isdigit():
            found.update(_written_by("%s/%s" % (proc, process), files, names))
    return found


def _written_by(process: str, files: Dict[Identity, str], names: Set[str]) -> Iterator[Identity]:
    try:
        descriptors = os.listdir(process + "/fd")
    except OSError:  # ended meanwhile, or another user's
        return
    for number in descriptors:
        try:
            # The link first: it answers without asking the file's disk, which may be a network's that hangs.
            if os.path.basename(os.readlink("%s/fd/%s" % (process, number))) not in names:
                continue
            status = os.stat("%s/fd/%s" % (process, number))
            identity = (status.st_dev, status.st_ino)
            if stat.S_ISREG(status.st_mode) and identity in files and _may_write(process, number):
                yield identity
        except OSError:  # closed meanwhile
            continue


def _may_write(process: str, number: str) -> bool:
    """Whether the descriptor was opened for writing (``flags`` of fdinfo, in octal: proc_pid_fdinfo(5))."""
    with open("%s/fdinfo/%s" % (process, number), encoding="ascii") as file:
        for line in file:
            if line.startswith("flags:"):
                return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return True
