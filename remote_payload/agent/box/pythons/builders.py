"""Builds an environment under a temporary name: with uv, with pip, or as a layer over an interpreter that has torch.

Each builder makes ``partial``, and raises CommandFailed when one of its commands fails. ``run`` is ``command.run`` with
everything but the argv filled in.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import tempfile
from typing import Callable, Dict, Iterator, Optional, Sequence, Tuple

from remote_payload.agent.box.command import CommandFailed
from remote_payload.agent.box.pythons import requirement
from remote_payload.agent.box.pythons.interpreters import Interpreter

Run = Callable[[Sequence[str]], None]

UV_PLACES = (
    "~/.local/bin/uv",
    "~/.cargo/bin/uv",
    "/usr/local/bin/uv",
    "/opt/uv/uv",
    "/venv/main/bin/uv",
    "/opt/conda/bin/uv",
)
# A program of the layered interpreter, for the layer: its own one would start the interpreter below.
SCRIPT = """#!%(python)s
import sys
from %(module)s import %(top)s
sys.exit(%(function)s())
"""
LIST_SCRIPTS = """
import importlib.metadata, json
print(json.dumps({e.name: e.value for d in importlib.metadata.distributions() for e in d.entry_points
                  if e.group == "console_scripts"}))
"""
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*==\s*[^\s;,*]+\s*(;.*)?")
CUDA_PIN = re.compile(r"(nvidia-|cuda-|triton\b)")
SCRIPT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SCRIPT_VALUE = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_][\w.]*)\s*(\[.*\])?")


def without_cuda(requirements: str) -> str:
    """The requirements without the pins of CUDA's libraries: those of the torch that fits the driver are other ones."""
    kept = [line for line in requirements.splitlines() if not CUDA_PIN.match(line)]
    return "\n".join(kept) + "\n"


def build_with_uv(uv: str, partial: str, python: str, requirements: str, run: Run) -> None:
    """A new environment on ``python``, a path or a version that uv may download."""
    run([uv, "venv", "--quiet", "--python", python, "--prompt", "gpurun", partial])
    if requirements.strip():
        run([uv, "pip", "install", "--python", _python(partial), "-r", _write(partial, "requirements", requirements)])


def build_with_pip(partial: str, base: Interpreter, requirements: str, run: Run) -> None:
    """A new environment with Python's own venv and pip."""
    run([base.path, "-m", "venv", partial])
    if requirements.strip():
        run([_python(partial), "-m", "pip", "install", "-r", _write(partial, "requirements", requirements)])


def build_over(
    partial: str, base: Interpreter, lacking: Sequence[requirement.Requirement], locked: str, run: Run
) -> None:
    """A layer over ``base``: its packages stay where they are and can be imported; only missing ones are installed.

    pip does it, because it sees what ``base`` has (uv looks at one folder). ``--system-site-packages`` would not do: on a
    base that is itself a virtual environment it shows the packages of *its* base. torch keeps its version;
    packages that ``base`` lacks get their locked versions.
    """
    installed = base.installed()
    run([base.path, "-m", "venv", *(["--without-pip"] if "pip" in installed else []), partial])
    site = os.path.join(partial, "lib", "python%d.%d" % base.version[:2], "site-packages")
    with open(os.path.join(site, "gpurun_base.pth"), "w", encoding="utf-8") as file:
        file.write("".join("import site; site.addsitedir(%r)\n" % folder for folder in base.site))
    held = ["torch==%s" % installed["torch"]] if "torch" in installed else []
    pins = held + [line for name, line in _pins(locked) if name not in installed]
    wanted = _write(partial, "requirements", "\n".join(each.text for each in lacking))
    constraints = _write(partial, "constraints", "\n".join(pins))
    run([_python(partial), "-m", "pip", "install", "-r", wanted, "-c", constraints])
    _add_scripts(partial)


def relocate(partial: str, final: str) -> None:
    """Rewrites the paths in ``bin/`` and ``pyvenv.cfg`` that name the temporary place, so that it can be renamed."""
    old, new = os.fsencode(partial), os.fsencode(final)
    folder = os.path.join(partial, "bin")
    for path in [os.path.join(partial, "pyvenv.cfg"), *(os.path.join(folder, name) for name in os.listdir(folder))]:
        if os.path.islink(path) or not os.path.isfile(path) or os.path.getsize(path) > 1 << 20:
            continue
        with open(path, "rb") as file:
            content = file.read()
        if old in content and b"\0" not in content:
            with open(path, "wb") as file:  # in place: keeps its mode
                file.write(content.replace(old, new))


def find_uv(folder: str) -> Optional[str]:
    """A uv on the box: on PATH, where its installer puts it, or the one we installed into ``folder``."""
    places = [os.path.expanduser(place) for place in UV_PLACES] + [os.path.join(folder, "uv", "bin", "uv")]
    return shutil.which("uv") or next((place for place in places if os.access(place, os.X_OK)), None)


def install_uv(folder: str, interpreters: Sequence[Interpreter], run: Run) -> Optional[str]:
    """Installs uv into ``folder``/uv with some interpreter's pip. None where there is no pip or it cannot get uv."""
    pip = next((each for each in interpreters if "pip" in each.installed()), None)
    if pip is None:
        return None
    os.makedirs(folder, exist_ok=True)
    partial = tempfile.mkdtemp(prefix="uv.partial-", dir=folder)
    try:
        # --target is allowed where a distribution marks its Python as managed by itself alone (PEP 668).
        run([pip.path, "-m", "pip", "install", "--quiet", "--no-deps", "--target", partial, "uv"])
        run([os.path.join(partial, "bin", "uv"), "--version"])
        os.rename(partial, os.path.join(folder, "uv"))
    except (CommandFailed, OSError):  # or another build was faster
        pass
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return find_uv(folder)


def variables(root: str, interpreters: Sequence[Interpreter], cuda: Optional[int]) -> Dict[str, str]:
    """The environment of the commands: the box's own settings of pip and uv, ours where it has none."""
    values = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        values.pop(name, None)
    defaults = {
        "UV_CACHE_DIR": os.path.join(root, "cache", "uv"),  # beside the environments: uv makes hard links
        "UV_PYTHON_INSTALL_DIR": os.path.join(root, "tools", "python"),  # as lasting as the environments on it
        "PIP_CACHE_DIR": os.path.join(root, "cache", "pip"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        **uv_settings(pip_settings(interpreters)),
    }
    if cuda is not None and cuda < 13:
        defaults["UV_TORCH_BACKEND"] = "auto"  # PyPI's torch is built for CUDA 13 since 2.11: take what the driver runs
    return {**defaults, **values}


def pip_settings(interpreters: Sequence[Interpreter]) -> Dict[str, str]:
    """The settings of the box's pip, from its configuration and environment: option → value."""
    pip = next((each for each in interpreters if "pip" in each.installed()), None)
    if pip is None:
        return {}
    try:
        listed = subprocess.run(
            [pip.path, "-m", "pip", "config", "list"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20,
        ).stdout  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return {}
    settings: Dict[str, Dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.decode("utf-8", "replace").splitlines():
        place, _, value = line.partition("=")
        section, _, option = place.rpartition(".")
        if section in settings and value[:1] in ("'", '"'):
            settings[section][option] = str(ast.literal_eval(value))
    return {**settings["global"], **settings["install"], **settings[":env:"]}


def uv_settings(pip: Dict[str, str]) -> Dict[str, str]:
    """The same indexes for uv, which does not read pip's configuration: both use the same mirror or folder of wheels."""
    settings = {}
    if pip.get("index-url"):
        settings["UV_DEFAULT_INDEX"] = pip["index-url"]
    if pip.get("extra-index-url"):
        settings["UV_INDEX"] = " ".join(pip["extra-index-url"].split())
        settings["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # what pip does with several indexes
    if pip.get("find-links"):
        settings["UV_FIND_LINKS"] = ",".join(pip["find-links"].split())
    if pip.get("cert"):
        settings["SSL_CERT_FILE"] = pip["cert"]
    return settings


def _add_scripts(partial: str) -> None:
    """Writes the console scripts of every package the layer sees and has none for (torchrun, accelerate …)."""
    listed = subprocess.run(
        [_python(partial), "-c", LIST_SCRIPTS], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60, check=True
    )
    for name, value in json.loads(listed.stdout.decode("utf-8")).items():
        path, target = os.path.join(partial, "bin", name), SCRIPT_VALUE.fullmatch(value)
        if target is None or not SCRIPT_NAME.fullmatch(name) or os.path.lexists(path):
            continue
        module, function = target.group(1), target.group(2)
        names = {"python": _python(partial), "module": module, "top": function.split(".")[0], "function": function}
        with open(path, "w", encoding="utf-8") as file:
            file.write(SCRIPT % names)
        os.chmod(path, 0o755)


def _pins(locked: str) -> Iterator[Tuple[str, str]]:
    """The lines ``name==version``, with their markers and without hashes; pip takes nothing else as a constraint."""
    for line in re.sub(r"\s--hash=\S+", "", locked.replace("\\\n", " ")).splitlines():
        pin = PIN.fullmatch(line.strip())
        if pin:
            yield requirement.normalise(pin.group(1)), line.strip()


def _write(partial: str, name: str, text: str) -> str:
    path = os.path.join(partial, "gpurun-%s.txt" % name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.rstrip() + "\n")
    return path


def _python(partial: str) -> str:
    return os.path.join(partial, "bin", "python")
