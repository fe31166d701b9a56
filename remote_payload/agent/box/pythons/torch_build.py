"""The torch of an interpreter: what it was built for, read from its files, and whether it can use the GPUs, asked of torch itself."""

import json
import os
import re
import subprocess
from typing import NamedTuple, Optional, Sequence

from remote_payload.agent.box.pythons import question

LIMIT = 60.0  # seconds: importing torch takes two from a warm disk and half a minute from a network volume
QUESTION = """
import json, torch
usable, why = 0, ""
try:
    usable = torch.cuda.device_count() if torch.cuda.is_available() else 0
    usable or torch.cuda.init()
except Exception as error:
    why = str(error).strip() or type(error).__name__
print(json.dumps({"usable": usable, "why": why.splitlines()[0] if why else ""}))
"""


class TorchBuild(NamedTuple):
    """A torch and the CUDA that it was built for ("12.8"), None for a build without CUDA."""

    version: str
    cuda: Optional[str]

    def runs_on(self, driver: int) -> bool:
        """Whether a driver for the major version ``driver`` of CUDA runs this build: a newer major version needs a newer driver."""
        return self.cuda is not None and int(self.cuda.partition(".")[0]) <= driver


class Usable(NamedTuple):
    """How many GPUs torch can use; where it is none, torch's own reason."""

    gpus: int
    why: str


def read(site: Sequence[str]) -> Optional[TorchBuild]:
    """The torch that these folders hold, None where they hold none. Nothing is imported: ``torch/version.py`` is read."""
    for folder in site:
        try:
            with open(os.path.join(folder, "torch", "version.py"), encoding="utf-8") as file:
                text = file.read(65536)
        except (OSError, UnicodeDecodeError):
            continue
        version = re.search(r"^__version__\b[^=]*=\s*['\"]([\w.+-]+)", text, re.MULTILINE)
        cuda = re.search(r"^cuda\b[^=]*=\s*['\"](\d[\d.]*)", text, re.MULTILINE)
        return TorchBuild(version.group(1) if version else "?", cuda.group(1) if cuda else None)
    return None


def unfit(build: TorchBuild, driver: Optional[int], release: Optional[str]) -> Optional[str]:
    """Why this torch cannot use GPUs with the driver ``release``, which runs CUDA ``driver``; None where it can, or without a driver."""
    if driver is None or build.runs_on(driver):
        return None
    if build.cuda is None:
        return "torch %s is a CPU build" % build.version
    return "torch %s is built for CUDA %s, the driver %s runs CUDA %d" % (build.version, build.cuda, release, driver)


def ask(path: str) -> Usable:
    """How many GPUs torch can use in the interpreter at ``path``. Raises OSError or ValueError where it gives no answer in LIMIT."""
    hidden = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
    try:
        done = question.ask(path, QUESTION, LIMIT, hidden)
    except subprocess.TimeoutExpired:
        raise ValueError("torch was not imported in %d s" % LIMIT) from None
    if done.returncode:
        raise ValueError("torch cannot be imported: %s" % question.last_message(done))
    answer = json.loads(done.stdout.decode("utf-8").strip().rpartition("\n")[2])
    return Usable(int(answer["usable"]), str(answer["why"])[:300])
