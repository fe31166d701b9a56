"""Which provider's box this is, and which of its folders survives a stop.

An SSH session does not see the variables that the provider gave to the container: they are read from process 1. Only those that are asked
for by name are looked at, and no other value leaves this module.

A box that the laptop has no note of is sent this file together with ``runner/transport/bootstrap/on_box.py``, since the root has to be
known before the agent is there. So it imports nothing of the agent's.
"""

import os
import re
from typing import Dict, List, NamedTuple, Optional, Sequence

ROOT_NAME = ".gpurun-box"  # as in wire/paths.py
SAFE_PATH = "[A-Za-z0-9._/@+-]+"
NAMES = ("RUNPOD_POD_ID", "VAST_CONTAINERLABEL", "CONTAINER_ID")
# Kinds of filesystem without a disk of their own behind them.
NOT_A_DISK = re.compile(
    "aufs|autofs|bpf|cgroup2?|configfs|debugfs|dev(pts|tmpfs)|fusectl|hugetlbfs|mqueue|nsfs|overlay|proc|pstore|ramfs|rpc_pipefs"
    "|securityfs|squashfs|sysfs|tmpfs|tracefs"
)
# Folders in which a container's engine mounts files of its own.
SYSTEM = re.compile("/(bin|boot|dev|etc|lib|lib32|lib64|proc|run|sbin|sys|tmp|usr|var)(/|$)")
LAMBDA_FILES = ("/lambda/nfs", "/var/lib/dpkg/info/lambda-stack-cuda.list")


class Mount(NamedTuple):
    """A line of /proc/self/mounts."""

    source: str
    folder: str
    kind: str
    options: List[str]

    @property
    def is_disk(self) -> bool:
        """Whether it has files of its own: neither the container's own disk, nor memory, nor the kernel's tables."""
        return self.folder != "/" and not NOT_A_DISK.fullmatch(self.kind)

    @property
    def is_network(self) -> bool:
        """A network filesystem names another machine: ``host:/path``, ``mfs#host:port``."""
        return self.is_disk and bool(
            re.match(r"(nfs|fuse|ceph|lustre|gpfs|panfs|glusterfs|beegfs|wekafs|cifs|smb)", self.kind)
        )


class Provider(NamedTuple):
    """``runpod``, ``vast``, ``lambda``, or "" for a box of another kind; ``box_id`` is its name for the box ("" where unknown)."""

    name: str
    box_id: str


def read_provider(proc: str = "/proc") -> Provider:
    """The provider, from variables and files."""
    return provider_of(read_variables(NAMES, proc))


def read_variables(names: Sequence[str], proc: str = "/proc") -> Dict[str, str]:
    """Those of the variables that are set, by name: for process 1 (only its own user may read that), else for this process.

    A value of other characters than a name, a number or an address has counts as not set.
    """
    named: Dict[str, str] = {}
    for process in ("1", "self"):
        try:
            with open("%s/%s/environ" % (proc, process), "rb") as file:
                entries = file.read().decode("ascii", "replace").split("\0")
        except OSError:
            continue
        for name, _, value in (entry.partition("=") for entry in entries):
            if name in names and re.fullmatch("[A-Za-z0-9._-]{1,64}", value):
                named.setdefault(name, value)
    return named


def provider_of(named: Dict[str, str]) -> Provider:
    """The provider by these variables, else by the files that its images have."""
    home = os.path.expanduser("~")
    if "RUNPOD_POD_ID" in named:
        return Provider("runpod", named["RUNPOD_POD_ID"])
    # Other tools call their containers CONTAINER_ID too; at vast.ai it is a number.
    number = named.get("CONTAINER_ID", "") or named.get("VAST_CONTAINERLABEL", "").partition(".")[2]
    number = number if number.isdigit() else ""
    if "VAST_CONTAINERLABEL" in named or number or os.path.exists(os.path.join(home, ".vast_containerlabel")):
        return Provider("vast", number)
    if home == "/home/ubuntu" and any(os.path.exists(path) for path in LAMBDA_FILES):
        return Provider("lambda", "")
    return Provider("", "")


def read_mounts(proc: str = "/proc") -> List[Mount]:
    """What is mounted for this process; of several mounts on one folder the last, which hides the others."""
    try:
        with open(proc + "/self/mounts", encoding="utf-8", errors="replace") as file:
            lines = [line.split(" ") for line in file]
    except OSError:
        return []
    found = {}
    for words in lines:
        if len(words) > 3:
            folder = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code.group(1), 8)), words[1])
            found[folder] = Mount(words[0], folder, words[2], words[3].split(","))
    return list(found.values())


def mount_of(path: str, mounts: List[Mount]) -> Optional[Mount]:
    """The mount on which a path lies, with links followed."""
    path = os.path.join(os.path.realpath(path), "")
    above = [mount for mount in mounts if path.startswith(os.path.join(mount.folder, ""))]
    return max(above, key=lambda mount: len(mount.folder), default=None)


def find_volume(mounts: List[Mount]) -> str:
    """The folder on which the provider mounted a volume that can be written and executed from: /workspace, else the first; "" for none."""
    found = [
        mount.folder
        for mount in mounts
        if mount.is_disk
        and not SYSTEM.match(mount.folder)
        and re.fullmatch(SAFE_PATH, mount.folder)
        and not {"ro", "noexec"} & set(mount.options)
        and os.path.isdir(mount.folder)
        and os.access(mount.folder, os.W_OK | os.X_OK)
    ]
    return "/workspace" if "/workspace" in found else found[0] if found else ""


def surviving_folder() -> str:
    """The folder that is to hold the root, "-" for the home folder, which keeps a root that it has.

    RunPod's stop empties everything but the volume. A pause at vast.ai and a restart at Lambda keep the disk.
    """
    if os.path.isdir(os.path.join(os.path.expanduser("~"), ROOT_NAME)) or read_provider().name != "runpod":
        return "-"
    return find_volume(read_mounts()) or "-"
