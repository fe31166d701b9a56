"""The Python interpreters on the box and the packages that each has, read from metadata: no package is imported.

The PATH of a non-interactive shell is short: the folders where images of GPU providers keep their interpreters are searched too.
"""

import glob
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from remote_payload.agent.box.pythons import question, torch_build
from remote_payload.agent.box.pythons.requirement import Requirement, normalise, unsatisfied

PLACES = (
    "/venv/main/bin",
    "/opt/conda/bin",
    "/opt/venv/bin",
    "/workspace/venv/bin",
    "~/venv/bin",
    "~/.venv/bin",
    "~/miniconda3/bin",
    "~/anaconda3/bin",
    "~/miniforge3/bin",
    "/opt/miniconda3/bin",
    "/opt/conda/envs/*/bin",
    "~/miniconda3/envs/*/bin",
    "/usr/local/bin",
    "/usr/bin",
    "~/.pyenv/versions/*/bin",
    "~/.local/share/uv/python/*/bin",
)
DRIVER_FILE = "/proc/driver/nvidia/version"
STAND_IN = "GPURUN_FAKE_DRIVER"  # for tests where there is no driver: the variable that names a file like DRIVER_FILE
NAME = re.compile(r"python(3(\.\d{1,2})?)?")
MAX_CANDIDATES = 64
LIMIT = 10.0  # seconds for one interpreter to answer QUESTION
QUESTION = """
import json, sys
site = [p for p in sys.path if p.rstrip("/").endswith(("site-packages", "dist-packages"))]
print(json.dumps({"version": list(sys.version_info[:3]), "prefix": sys.prefix, "base_prefix": sys.base_prefix,
                  "implementation": sys.implementation.name, "site": site}))
"""


class Interpreter(NamedTuple):
    """One interpreter: how to start it, its version, and the folders it imports packages from."""

    path: str
    version: Tuple[int, int, int]
    prefix: str
    site: Tuple[str, ...]

    def is_version(self, asked: Optional[str]) -> bool:
        """Whether this is Python ``asked`` ("3.11" or "3.11.4"; None is any)."""
        wanted = asked.split(".") if asked else []
        return [str(number) for number in self.version[: len(wanted)]] == wanted

    def makes_environments(self) -> bool:
        """Whether ``-m venv`` works: it needs ensurepip, which Debian and Ubuntu leave out."""
        imported = [self.path, "-c", "import venv, ensurepip"]
        return subprocess.run(imported, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def installed(self) -> Dict[str, str]:
        """Normalised name → version of every distribution that its import path would find first."""
        versions: Dict[str, str] = {}
        for folder in self.site:
            for name, version in _distributions(folder):
                versions.setdefault(name, version)
        return versions


def find(named: Sequence[str] = ()) -> List[Interpreter]:
    """Every CPython ≥ 3.8 that runs: those named first, then an active environment, PLACES, and the folders of PATH."""
    return _ask_all(_candidates(named))


def find_satisfying(
    named: Sequence[str], python: Optional[str], ranges: Sequence[Requirement], cuda: Optional[int]
) -> Optional[Interpreter]:
    """The interpreter that ``satisfying`` would choose of all that ``find`` finds; where the first one satisfies, no other is started."""
    paths = _candidates(named)
    for some in (paths[:1], paths[1:]):
        found = satisfying(_ask_all(some), python, ranges, cuda)
        if found is not None:
            return found
    return None


def _ask_all(paths: Sequence[str]) -> List[Interpreter]:
    with ThreadPoolExecutor(max_workers=8) as pool:
        asked = list(pool.map(_ask_or_none, paths))
    return [interpreter for interpreter in asked if interpreter is not None]


def ask(path: str) -> Interpreter:
    """The interpreter at ``path``. Raises OSError or ValueError saying why it cannot be used."""
    try:
        done = question.ask(path, QUESTION, LIMIT)
    except subprocess.TimeoutExpired:
        raise ValueError("it gave no answer in %d s" % LIMIT) from None
    if done.returncode:
        raise ValueError("it ended with status %d: %s" % (done.returncode, question.last_message(done)))
    answer = json.loads(done.stdout[-65536:].decode("utf-8"))
    version = tuple(answer["version"])
    if version < (3, 8, 0) or answer["implementation"] != "cpython":
        raise ValueError("it is %s %s; CPython 3.8 or newer is needed" % (answer["implementation"], _dotted(version)))
    return Interpreter(path, version, answer["prefix"], tuple(answer["site"]))


def satisfying(
    interpreters: Sequence[Interpreter], python: Optional[str], ranges: Sequence[Requirement], cuda: Optional[int]
) -> Optional[Interpreter]:
    """The first of ``interpreters`` with everything in ``ranges``; ``cuda`` as in ``torch_runs``. None if there is none."""
    for interpreter in interpreters:
        if interpreter.is_version(python) and not missing(interpreter, ranges, cuda):
            return interpreter
    return None


def missing(interpreter: Interpreter, ranges: Sequence[Requirement], cuda: Optional[int]) -> List[Requirement]:
    """The requirements in ``ranges`` that this interpreter does not satisfy, a torch that cannot use the box's GPU included."""
    lacking = unsatisfied(list(ranges), interpreter.installed())
    torch = next((each for each in ranges if each.name == "torch"), None)
    if torch is not None and torch not in lacking and not torch_runs(interpreter, cuda):
        lacking.append(torch)
    return lacking


def torch_runs(interpreter: Interpreter, cuda: Optional[int]) -> bool:
    """Whether its torch was built for a CUDA that the driver runs (a newer major version needs a newer driver).

    ``cuda`` is the major version the driver supports, None on a box without a GPU, where any torch is accepted.
    """
    if cuda is None:
        return True
    build = torch_build.read(interpreter.site)
    return build is not None and build.runs_on(cuda)


class Lacks(NamedTuple):
    """What keeps an interpreter from running a job: requirements that it does not satisfy, and why its torch cannot use the GPU."""

    missing: List[str]
    torch: Optional[str]


def lacks(interpreter: Interpreter, ranges: Sequence[Requirement], cuda: Optional[int]) -> Lacks:
    """As ``missing``, but a torch of the right version that cannot use the box's GPU is told with its reason."""
    installed = interpreter.installed()
    lacking = unsatisfied(list(ranges), installed)
    wanted = any(each.name == "torch" for each in ranges) and not any(each.name == "torch" for each in lacking)
    build = torch_build.read(interpreter.site) if wanted else None
    reason = torch_build.unfit(build, cuda, driver_release()) if build else None
    return Lacks([each.text for each in lacking], reason)


def driver_cuda(version_file: Optional[str] = None) -> Optional[int]:
    """The major version of CUDA that the loaded driver runs; None without one. Reads /proc: a hung driver does not matter.

    https://docs.nvidia.com/deploy/cuda-compatibility/: CUDA 11 from driver 450, 12 from 525, 13 from 580.
    """
    release = driver_release(version_file)
    if release is None:
        return None
    major = int(release.partition(".")[0])
    return next((cuda for since, cuda in ((580, 13), (525, 12), (450, 11)) if major >= since), 10)


def driver_release(version_file: Optional[str] = None) -> Optional[str]:
    """The loaded driver's release ("570.86.15"), None without one."""
    path = version_file or os.environ.get(STAND_IN) or DRIVER_FILE
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            found = re.search(r"Module.*?\s(\d{3,4}\.[\d.]{1,20})\s", file.read(4096))
    except OSError:
        return None
    return found.group(1) if found else None


def _candidates(named: Sequence[str]) -> List[str]:
    folders = [
        os.path.join(os.environ[name], "bin") for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if os.environ.get(name)
    ]
    for place in PLACES[:-3] + tuple(os.environ.get("PATH", "").split(":")) + PLACES[-3:]:
        folders += (
            sorted(glob.glob(os.path.expanduser(place)), key=_natural, reverse=True)
            if place.startswith(("/", "~"))
            else []
        )
    seen = set()
    paths = []
    for path in [*(os.path.expanduser(path) for path in named), *_pythons(folders), sys.executable]:
        # A virtual environment's python is a link to another one's: the folder tells them apart.
        identity = (os.path.realpath(os.path.dirname(path)), os.path.realpath(path))
        if identity not in seen and os.path.isfile(path) and os.access(path, os.X_OK):
            seen.add(identity)
            paths.append(path)
    return paths[:MAX_CANDIDATES]


def _pythons(folders: Sequence[str]) -> Iterator[str]:
    for folder in folders:
        if folder.endswith("/shims"):
            continue  # pyenv's shell scripts; what they start is found in its own place
        try:
            names = [name for name in os.listdir(folder) if NAME.fullmatch(name)]
        except OSError:
            continue
        for name in sorted(names):  # python, python3, python3.11 …
            yield os.path.join(folder, name)


def _natural(path: str) -> List[Tuple[int, str]]:
    """Sorts 3.13 after 3.9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]


def _ask_or_none(path: str) -> Optional[Interpreter]:
    try:
        return ask(path)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _distributions(folder: str) -> Iterator[Tuple[str, str]]:
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for entry in sorted(names):
        stem, kind = os.path.splitext(entry)
        # Installed by setup.py, as Debian's packages and old pips do: name-version[-pyX.Y].egg-info, a folder or a file.
        stem = re.sub(r"-py\d+\.\d+$", "", stem) if kind == ".egg-info" else stem
        name, _, version = stem.rpartition("-")
        proof = {".dist-info": "METADATA", ".egg-info": "PKG-INFO"}.get(kind)
        path = os.path.join(folder, entry)
        if (
            proof
            and name
            and (os.path.isfile(os.path.join(path, proof)) or (kind == ".egg-info" and os.path.isfile(path)))
        ):
            yield normalise(name), version


def _dotted(version: Sequence[Any]) -> str:
    return ".".join(str(number) for number in version)
