"""Verb ``probe``: what the box is and what is there already, in one request. Nothing of it can hang: what is late is unknown."""

import os
import platform
import pwd
import re
import shutil
import subprocess
import tempfile
from typing import Any, Callable, Dict, List, Optional

from remote_payload.agent.box import (
    bounded,
    builders,
    gpus,
    hardware,
    incoming,
    interpreters,
    processes,
    snapshot,
    tools,
)
from remote_payload.agent.run import allotment, spawn
from remote_payload.agent.verbs import patch, seal
from remote_payload.agent.verbs.provision import read_ranges
from remote_payload.agent.wire.paths import KEY, SHA256, BoxPaths, check_run_id
from remote_payload.agent.wire.request import AgentError, Request

LIMIT = 20.0  # seconds for everything; a healthy box needs less than one
CUDA_LIMIT = 5.0
TEXT_LIMIT = 200  # characters of any one fact
SPACE_TRIED = 64 << 10  # bytes written to see whether a disk takes them
GPU_MAX = 64


def probe(request: Request) -> Dict[str, Any]:
    """The facts that ARCHITECTURE.md lists. ``gpus`` is None where the driver does not answer in time.

    ``problems`` says of each fact that could not be had why; ``disk.error`` why nothing can be written.
    """
    args, paths = request.args, request.paths
    _make_room(args, paths)
    questions: Dict[str, Callable[[], Any]] = {
        "gpus": lambda: _gpus(paths),
        "cuda": _cuda,
        "disk": lambda: disk(paths.root),
        "rsync": _rsync,
        "ram": lambda: hardware.ram()["total"],
        "cpus": hardware.cpus,
        "shm": _shm,
        **{"have." + name: ask for name, ask in _possessions(args, paths).items()},
    }
    answers = bounded.gather(questions, LIMIT)
    problems = {name: text(answer) for name, answer in answers.items() if isinstance(answer, BaseException)}
    facts = {name: None if name in problems else answer for name, answer in answers.items()}
    have = {name[len("have.") :]: facts.pop(name) for name in list(facts) if name.startswith("have.")}
    have["program"] = _program(args, paths, have.get("interpreter"))
    have.update({"code": None, "link_dest": None, "patch": None, **(have["code"] or {})})
    facts["disk"] = facts["disk"] or {
        "total": 0,
        "free": 0,
        "inodes_free": None,
        "writable": False,
        "error": "no answer",
    }
    return {**_static_facts(paths), **facts, "have": have, "problems": problems}


def _make_room(args: Dict[str, Any], paths: BoxPaths) -> None:
    """For a submission: the folders that rsync will write below. What hinders it shows under ``disk``."""
    for name in _pushed(args):
        try:
            incoming.make_room(paths, name)
        except OSError:
            pass


def _pushed(args: Dict[str, Any]) -> List[str]:
    """Under which names below ``incoming/`` a submission pushes; none where nothing is submitted."""
    if args.get("run_id") is None:
        return []
    return [check_run_id(args["run_id"]), *(each["key"] for each in _data(args))]


def _data(args: Dict[str, Any]) -> List[Dict[str, Any]]:
    return [each for each in args.get("data") or () if isinstance(each, dict) and _is_key(each.get("key"))]


def _static_facts(paths: BoxPaths) -> Dict[str, Any]:
    """What cannot take long."""
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


def _possessions(args: Dict[str, Any], paths: BoxPaths) -> Dict[str, Callable[[], Any]]:
    """Questions about what is there already, each only if the request names it."""
    code, job, env, payload = (_text_or_none(args, name) for name in ("code_digest", "job_name", "env_key", "payload"))
    data = _data(args)
    return {
        "code": lambda: _code(paths, code, job) if code and job else {},
        "data": lambda: {each["key"]: seal.has_data(paths, each["key"], str(each.get("digest"))) for each in data},
        "data_link_dest": lambda: {each["key"]: earlier_version(paths, each["key"]) for each in data},
        "attempts": lambda: {name: incoming.earlier(paths, name) for name in _pushed(args)},
        "env": lambda: bool(env and KEY.fullmatch(env)) and os.path.exists(paths.env(str(env)) + "/bin/python"),
        "payload": lambda: bool(payload and SHA256.fullmatch(payload)) and os.path.isdir(paths.payload(str(payload))),
        "interpreter": lambda: _interpreter(args),
    }


def _code(paths: BoxPaths, digest: str, job: str) -> Dict[str, Any]:
    """The run that has just this code, or else what helps to send less of it: to rsync, or as a patch."""
    found = snapshot.find_code(paths, digest)
    if found:
        return {"code": found}
    latest = snapshot.latest_code(paths, job)
    return {"link_dest": _base(latest, snapshot.read_at(latest)) if latest else None, "patch": patch.offer(paths, job)}


def _base(path: str, read_at: Any) -> Dict[str, Any]:
    """A tree that a push may take files from, and when the laptop last saw that it had sent just that."""
    return {"path": path, "read_at": read_at if isinstance(read_at, int) else None}


def _program(args: Dict[str, Any], paths: BoxPaths, found: Optional[str]) -> Optional[str]:
    """Where the command's first word is, in the PATH that the payload would have now; None where it is nowhere."""
    word, given, env = (_text_or_none(args, name) for name in ("program", "interpreter", "env_key"))
    variables = args.get("variables") if isinstance(args.get("variables"), dict) else {}
    if not word:
        return None
    standing = os.path.join(paths.env(env), "bin", "python") if env and KEY.fullmatch(env) else None
    own = os.path.expanduser(given) if given else found or (standing if standing and os.path.exists(standing) else None)
    return shutil.which(spawn.program(word, own, variables or {}), path=spawn.search_path(own, variables or {}))


def _interpreter(args: Dict[str, Any]) -> Optional[str]:
    ranges = read_ranges(args.get("requirements"))
    if "requirements" not in args or ranges is None:
        return None
    named = [path for path in args.get("interpreters") or () if isinstance(path, str)]
    cuda, python = interpreters.driver_cuda(), _text_or_none(args, "python")
    found = interpreters.find_satisfying(named, python, ranges, cuda)
    return found.path if found else None


def earlier_version(paths: BoxPaths, key: str) -> Optional[Dict[str, Any]]:
    """The newest other ``data/<name>-<digest>`` of the same name: what rsync takes unchanged files from."""
    folder, prefix = os.path.dirname(paths.data(key)), key.rpartition("-")[0] + "-"
    try:
        names = [name for name in os.listdir(folder) if name.startswith(prefix) and name != key and _is_key(name)]
        names = [name for name in names if name.rpartition("-")[0] + "-" == prefix]
        newest = max(names, key=lambda name: os.path.getmtime(os.path.join(folder, name)), default=None)
    except OSError:
        return None
    return _base(os.path.join(folder, newest), seal.read_at(paths, newest)) if newest else None


def disk(root: str) -> Dict[str, Any]:
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


def _gpus(paths: BoxPaths) -> Optional[List[Dict[str, Any]]]:
    found = gpus.list_gpus()
    if found is None:
        return None
    held = allotment.holders(paths, found) if found else {}
    return [
        {
            "index": gpu.number,
            "uuid": text(gpu.uuid),
            "name": text(gpu.name),
            "memory_total": gpu.memory_total,
            "memory_used": gpu.memory_used,
            "utilisation": gpu.utilisation,
            "held_by": text(held[allotment.name(gpu)]) if allotment.name(gpu) in held else None,
        }
        for gpu in found[:GPU_MAX]
    ]


def _cuda() -> Optional[str]:
    """The newest CUDA that the driver runs, from NVML; its major version from /proc where NVML does not say."""

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


def _rsync() -> Optional[str]:
    """rsync's version, "unknown" where it is there and does not say, None where it is not."""
    try:
        said = subprocess.run(
            ["rsync", "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=10,
        ).stdout
    except FileNotFoundError:
        return None
    found = re.search(rb"version\s+v?([0-9][0-9A-Za-z.]{0,30})", said[:4096])
    return found.group(1).decode("ascii") if found else "unknown"


def _shm() -> int:
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


def _text_or_none(args: Dict[str, Any], name: str) -> Optional[str]:
    value = args.get(name)
    return value if isinstance(value, str) else None


def _is_key(value: object) -> bool:
    return isinstance(value, str) and bool(KEY.fullmatch(value))
