"""A payload that trains in steps and saves a checkpoint whenever the test, or a clock, says so; and what of them is home."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from runner.workflow.fetching.verify import sha256

# argv: how checkpoints are written, and the seconds between two of them; 0: one for each file go-<step> in the run's folder.
PROGRAM = r"""
import json, os, pathlib, sys, time
how, every, size = sys.argv[1], float(sys.argv[2]), 60_000
run = pathlib.Path(os.environ["GPURUN_RUN_DIR"])

def work(step):
    began = time.monotonic()
    while not (run / "end").exists():
        if (time.monotonic() - began >= every) if every else (run / ("go-%d" % step)).exists():
            return True
        time.sleep(0.02)
    return False

def save(step):
    state = {"t": time.time(), "step": step}
    if how == "file":
        whole = json.dumps(state).encode().ljust(size)
        pathlib.Path("checkpoints/ckpt.new.tmp").write_bytes(whole)
        os.replace("checkpoints/ckpt.new.tmp", "checkpoints/ckpt.pt")
        return
    name = "step-%06d" % step if how == "recipe" else "checkpoint-%d" % step
    final = pathlib.Path("checkpoints", name)
    folder = final.with_name(".tmp-" + name) if how == "recipe" else final
    folder.mkdir()
    (folder / "state.json").write_text(json.dumps(state))
    (folder / ("optimizer.safetensors" if how == "recipe" else "optimizer.pt")).write_bytes(os.urandom(size))
    if how == "recipe":
        files = [{"path": each.name, "size": each.stat().st_size} for each in folder.iterdir()]
        (folder / "manifest.json").write_text(json.dumps({"step": step, "files": files, "metrics": {"loss": 9.0 / step}}))
        folder.rename(final)
    else:
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": []}))

found = [each.name.rpartition("-")[2] for each in pathlib.Path("checkpoints").glob("*-*")]
step = max(map(int, found), default=0) if os.environ.get("GPURUN_RESUME") else 0
print("ready", flush=True)
while work(step + 1):
    step += 1
    save(step)
    print("saved", step, flush=True)
print("ended", flush=True)
sys.exit(int((run / "end").read_text() or "0"))
"""


@dataclass(frozen=True)
class Saved:
    """A checkpoint on this machine: its step, and when the program began to save it."""

    step: int
    at: float


def command(how: str, every: float = 0.0) -> list[str]:
    """The words of the job's ``command:``. ``how``: ``recipe``, ``trainer`` or ``file``."""
    return ["python3", "main.py", how, str(every)]


def home(outputs: Path) -> list[Saved]:
    """The checkpoints that lie whole in a folder of outputs, by what they hold; the newest last.

    A manifest names every file of its folder, so one that is there without them is a mistake.
    """
    found = []
    for path in (outputs / "checkpoints").glob("*"):
        if path.name == "ckpt.pt":
            found.append(_saved(path))
            continue
        listed = path / "manifest.json"
        if listed.exists():
            for file in json.loads(listed.read_text())["files"]:
                assert (path / file["path"]).stat().st_size == file["size"], path
        if listed.exists() or (path / "trainer_state.json").exists():
            found.append(_saved(path / "state.json"))
    return sorted(found, key=lambda saved: saved.step)


def _saved(file: Path) -> Saved:
    state = json.loads(file.read_text())
    return Saved(state["step"], state["t"])


def unverified(outputs: Path) -> list[str]:
    """The files under final names that are not what a fetch verified."""
    receipt = json.loads((outputs / ".gpurun-fetched.json").read_text())
    names = [str(path.relative_to(outputs)) for path in (outputs / "checkpoints").rglob("*") if path.is_file()]
    return [name for name in names if receipt[name][2] != sha256(outputs / name, (outputs / name).stat().st_size)]
