"""What the box is: its operating system, driver, tools, disk and memory, as facts that the verb ``probe`` reports."""

import os
import platform
import pwd
import re
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING, Optional

from remote_payload.agent.box import bounded, processes, tools
from remote_payload.agent.box.pythons import builders, interpreters
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import BoxPaths

if TYPE_CHECKING:
    from remote_payload.agent.wire.box_facts import Disk, StaticFacts

CUDA_LIMIT = 5.0  # seconds
TEXT_LIMIT = 200  # characters of any one fact
SPACE_TRIED = 64 << 10  # bytes written to see whether a disk takes them
NO_DISK: "Disk" = {"total": 0, "free": 0, "inodes_free": None, "writable": False, "error": "no answer"}


def static_facts(paths: BoxPaths) -> "StaticFacts":
    """The facts that are quickly known."""
    uv = builders.find_uv(os.path.join(paths.root, "tools"))
    driver = interpreters.driver_release()
    return {
        "root": paths.root,
        "user": text(_user()),
        "home": text(os.path.expanduser("~")),
        "python": platform.python_version(),
        "os": text(_os_name()),
        "machine": text(platform.machine()),
        "in_container": in_container(),
        "boot_id": processes.boot_id(),
        "driver": text(driver) if driver else None,
        "apt": tools.obstacle() is None,
        "obstacle": tools.obstacle(),
        "install_rsync": tools.install_command(["rsync"]),
        "tools": {"uv": text(uv) if uv else None, "git": shutil.which("git") is not None},
    }


def disk(root: str) -> "Disk":
    """``{total, free, inodes_free, writable, error}`` of where ``root`` lies; writable means that it took some bytes just now."""
    there = root
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    space = os.statvfs(there)
    error = _try_to_write(root)
    return {
        "total": space.f_blocks * space.f_frsize,
        "free": space.f_bavail * space.f_frsize,
        "inodes_free": space.f_favail if space.f_files else None,  # btrfs and some network volumes count none
        "writable": error is None,
        "error": error,
    }


def _try_to_write(root: str) -> Optional[str]:
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=root, prefix=".probe-") as file:
            file.write(b"\0" * SPACE_TRIED)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or "cannot be written"
    return None


def cuda() -> Optional[str]:
    """The newest CUDA that the driver runs, from NVML; its major version from /proc where NVML has none."""

    def ask() -> str:
        import pynvml

        pynvml.nvmlInit()
        version = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
        return "%d.%d" % (version // 1000, version % 1000 // 10)

    try:
        return bounded.Call(ask).result(CUDA_LIMIT)
    except Exception:
        major = interpreters.driver_cuda()
        return str(major) if major else None


def rsync() -> Optional[str]:
    """rsync's version, "unknown" where it prints none, None where it is not installed."""
    try:
        output = subprocess.run(
            ["rsync", "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=10,
        ).stdout
    except FileNotFoundError:
        return None
    found = re.search(rb"version\s+v?([0-9][0-9A-Za-z.]{0,30})", output[:4096])
    return found.group(1).decode("ascii") if found else "unknown"


def shm() -> int:
    """Bytes of /dev/shm, 0 where there is none."""
    if not os.path.ismount("/dev/shm"):
        return 0
    space = os.statvfs("/dev/shm")
    return space.f_blocks * space.f_frsize


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # some containers run as a number without a name
        return str(os.getuid())


def _os_name() -> str:
    try:
        with open("/etc/os-release", encoding="utf-8", errors="replace") as file:
            found = re.search(r'^PRETTY_NAME="?([^"\n]*)', file.read(65536), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.system()


def in_container() -> bool:
    """Whether PID 1 is something else than a machine's init."""
    if any(os.path.exists(path) for path in ("/.dockerenv", "/run/.containerenv")):
        return True
    first = processes.read(1)
    return first is not None and first.name not in ("systemd", "init", "runit", "openrc-init")


def text(value: object) -> str:
    """Any fact as printable text of bounded length; the laptop checks it again."""
    if isinstance(value, (OSError, AgentError)):
        value = getattr(value, "strerror", None) or str(value)
    return "".join(each if each.isprintable() else "?" for each in str(value)[:TEXT_LIMIT])
