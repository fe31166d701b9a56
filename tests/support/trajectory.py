"""A payload whose every number follows from the one before, and that tells the test, not gpurun, when and where it lives.

It saves a checkpoint every fifth step, and when it is told to end. So a run that was interrupted and went on from its checkpoint shows
the same numbers as one without a break, and one that began anew, left a step out or lived twice does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# Variables: TRUTH, the file for what it says; STEPS; HOLD: a step after which it waits for a file "go" beside TRUTH; PACE: seconds of a
# step; NAME.
PROGRAM = r"""
import json, os, pathlib, signal, sys, time
truth, out = pathlib.Path(os.environ["TRUTH"]), pathlib.Path("models")
steps, hold, name = int(os.environ.get("STEPS", "20")), int(os.environ.get("HOLD", "0")), os.environ.get("NAME", "it")
pace = float(os.environ.get("PACE", "0"))
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(True))

def say(word, *more):
    who = (name, os.uname().nodename, os.environ.get("CUDA_VISIBLE_DEVICES") or "-", os.getpid(), time.monotonic())
    descriptor = os.open(truth, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (" ".join(map(str, (word, *who, *more))) + "\n").encode())
    os.close(descriptor)

def save(step, value):
    new = out / (".new-%d" % os.getpid())
    new.mkdir()
    (new / "state.json").write_text(json.dumps({"step": step, "value": value}))
    new.rename(out / ("step-%06d" % step))

def event(type, **more):
    with open(os.environ["GPURUN_EVENTS"], "a") as file:
        file.write(json.dumps({"t": time.time(), "type": type, **more}) + "\n")

saved = [json.loads(path.read_text()) for path in out.glob("step-*/state.json")]
last = max(saved, key=lambda state: state["step"], default={"step": 0, "value": 1})
step, value = last["step"], last["value"]
say("begin", os.environ.get("GPURUN_RESUME", "anew"), step, os.environ.get("KEY", "-"))
print("begin at", step, "on", os.uname().nodename, flush=True)
while step < steps and not told:
    step, value = step + 1, (value * 6364136223846793005 + 1442695040888963407) % 2**64
    say("step", step, value)
    event("step", step=step, total=steps, loss=value / 2**64)
    print("step", step, flush=True)
    if step % 5 == 0:
        save(step, value)
    time.sleep(pace)
    while step == hold and not told and not (truth.parent / "go").exists():
        time.sleep(0.02)
if step % 5:
    save(step, value)
print("told to end" if told else "end", flush=True)
say("end", step)
"""


@dataclass(frozen=True)
class Life:
    """One process of the payload, by its own words. Times are the kernel's monotonic clock, which all nodes here share."""

    name: str
    node: str
    gpus: str
    pid: int
    began: float
    last_seen: float
    resumed: str  # GPURUN_RESUME, or "anew"
    first: int  # the step that it went on from
    steps: dict[int, int]
    ended: bool
    key: str


def lives(truth: Path) -> list[Life]:
    """All processes in the order of their beginnings."""
    found: dict[tuple[str, str, int], Life] = {}
    for line in truth.read_text().splitlines() if truth.exists() else ():
        word, name, node, gpus, pid, at, *more = line.split()
        who = (name, node, int(pid))
        if word == "begin":
            # The number may have been another's before: a node that was started again counts from one.
            earlier = found.pop(who, None)
            if earlier is not None:
                found[(name, node, -len(found) - 1)] = earlier
            found[who] = Life(
                name, node, gpus, int(pid), float(at), float(at), more[0], int(more[1]), {}, False, more[2]
            )
            continue
        life = found[who]
        steps = {**life.steps, int(more[0]): int(more[1])} if word == "step" else life.steps
        found[who] = Life(
            name, node, gpus, int(pid), life.began, float(at), life.resumed, life.first, steps, word == "end", life.key
        )
    return sorted(found.values(), key=lambda life: life.began)


def straight(steps: int) -> dict[int, int]:
    """The numbers of a run without a break."""
    numbers, value = {}, 1
    for step in range(1, steps + 1):
        value = (value * 6364136223846793005 + 1442695040888963407) % 2**64
        numbers[step] = value
    return numbers


def at_the_same_time(one: Life, other: Life) -> bool:
    """Whether both were seen alive at one moment."""
    return one.began < other.last_seen and other.began < one.last_seen
