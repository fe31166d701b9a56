"""Runs the Python of model cards as a stranger would: in a process that has transformers and peft, and no gpurun."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.support.models.tiny_models import save_tiny_model

# Each task's snippet is executed as it stands, then ``after`` in the same namespace; it leaves its answer in ``found``.
RUNNER = """
import importlib.util, json, os, socket, sys
from huggingface_hub import constants
there = [name for name in ("runner", "remote_payload", "tests") if importlib.util.find_spec(name)]
assert not there, f"{there} can be imported here"
asked, answers = [], {}
def refuse(host, *rest, **more):
    asked.append(str(host))
    raise socket.gaierror(f"no network here, and {host} was asked for")
socket.getaddrinfo = socket.socket.connect = refuse
for name, task in json.load(sys.stdin).items():
    os.chdir(task["folder"])
    constants.HF_HUB_OFFLINE = task["offline"]
    names = {"__name__": name}
    try:
        exec(compile(task["snippet"], name, "exec"), names)
        exec(compile(task["after"], name, "exec"), names)
    except OSError as error:
        names["found"] = {"error": type(error).__name__, "message": str(error)}
    answers[name] = {"found": names["found"], "asked": asked.copy()}
    asked.clear()
print("\\n" + json.dumps(answers))
"""


@dataclass(frozen=True)
class Task:
    """A card's snippet, run in ``folder``; ``after`` is Python that uses what it defines and sets ``found``. ``offline``: what it needs
    of the Hub is in the cache, and nothing is asked for, which else takes half a minute to fail."""

    folder: Path
    snippet: str
    after: str
    offline: bool


def snippet_of(best: Path) -> str:
    """The Python in the card of a model's folder."""
    return (best / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]


def run_without_gpurun(tasks: dict[str, Task], hf_home: Path) -> dict[str, Any]:
    """What each task ``found``, by its name, and which hosts it ``asked`` for; there is no network.

    ``-S`` leaves out the .pth files that make gpurun importable in this environment.
    """
    packages = sysconfig.get_paths()["purelib"]
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "OMP_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", RUNNER],
        input=json.dumps({name: {**asdict(task), "folder": str(task.folder)} for name, task in tasks.items()}),
        env={**kept, "PYTHONPATH": packages, "HF_HOME": str(hf_home), "TOKENIZERS_PARALLELISM": "false"},
        cwd=hf_home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


def put_into_cache(hf_home: Path, name: str, architecture: str, commit: str) -> None:
    """A tiny model as a repository in the cache of huggingface_hub, at ``commit``; ``main`` is a later commit with other weights."""
    repository = hf_home / "hub" / f"models--{name.replace('/', '--')}"
    save_tiny_model(architecture, repository / "snapshots" / commit)
    later = "f" * 40
    shutil.copytree(repository / "snapshots" / commit, repository / "snapshots" / later)
    save_tiny_model(architecture, repository / "snapshots" / later, seed=9)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(later)
