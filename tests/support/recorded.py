"""Honest answers, recorded: what the agent of a real embedded box says to each verb, and a laptop that is told them again, changed."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import pkgutil
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from remote_payload.agent.wire import protocol
from remote_payload.recipes import answers
from runner import store, workflow
from runner.cli.group import run
from runner.domain.host import Host
from runner.domain.progress import Silent
from runner.domain.requests import PeerRequest
from runner.transport import bundle
from runner.transport import link as opening
from runner.transport.agent import Agent
from runner.transport.link import Link
from runner.transport.session import AgentSession
from runner.transport.transfer import rsync, tarball
from runner.workflow import connect as connecting
from runner.workflow.connect import connect, resolve_or_start_host
from tests.support.agent import wait_until
from tests.support.replay import Answer, Said, replaying

TRAIN = """
import json, os, pathlib
folder = pathlib.Path("checkpoints/step-000004")
folder.mkdir(parents=True)
(folder / "optimizer.safetensors").write_text("o")
files = [{"path": "optimizer.safetensors", "size": 1, "sha256": "0" * 64}]
(folder / "manifest.json").write_text(json.dumps({"step": 4, "files": files, "metrics": {"loss": 1.5}}))
pathlib.Path("models").mkdir(exist_ok=True)
pathlib.Path("models/weights").write_bytes(b"w" * 1000)
os.symlink("/etc/hostname", "models/outward")
pathlib.Path("models/checkpoint-9").mkdir()
pathlib.Path("models/checkpoint-9/optimizer.pt").write_text("the run ends before its trainer_state.json")
step = {"t": 1.0, "type": "step", "step": 4, "total": 8, "epoch": 0.5, "loss": 1.5, "ms": 20.0}
hardware = {"t": 1.0, "type": "hardware", "gpus": [{"index": 0, "used": 5}], "cpu": 0.5}
evaluation = {"t": 1.0, "type": "eval", "name": "test", "step": 4, "metrics": {"loss": 1.5}}
checkpoint = {"t": 1.0, "type": "checkpoint", "name": "step-000004", "step": 4}
flag = {"t": 1.0, "type": "flag", "name": "plateau", "message": "flat"}
with open(os.environ["GPURUN_EVENTS"], "a") as events:
    for event in (step, hardware, evaluation, checkpoint, flag):
        events.write(json.dumps(event) + "\\n")
print("trained")
"""
# Entries of lists that are empty on a machine without GPUs and left-overs, and the answers of what cannot run here.
PROCESS = {"pid": 7, "command": "python train.py", "state": "R"}
STRANGER = {"pid": 8, "user": "ada", "age": 5, "command": "x", "memory": 1, "gpus": [0], "run_id": None, "kept": "Xorg"}
GPU = {
    "index": 0,
    "uuid": "GPU-1",
    "name": "RTX",
    "memory_total": 1 << 34,
    "memory_used": 0,
    "utilisation": 1,
    "held_by": None,
    "set_aside": None,
}
PEER: PeerRequest = {"address": "127.0.0.1", "port": 1, "greeting": "g" * 32, "reply": "r" * 32}
LISTENING = {
    "ports": [20000, 20001],
    "interfaces": [{"name": "eth1", "address": "10.88.0.1"}],
    "cluster": {"NODE_RANK": "0"},
}
WRITTEN = answers.Answer(False, 1, "b", 3, 0.5, True)
SCORED = answers.Classified("x", 1.0, {"x": 1.0}, None, None, False, 0.5)
SAMPLED = [
    {"line": json.dumps({"ready": True})},
    {"line": answers.to_line(answers.Loaded("best", "causal_lm", "cpu", metrics={"loss": 1.5}))},
    {"line": answers.to_line(answers.Answered("a", (WRITTEN,), SCORED))},
]


@dataclass
class Recording:
    """The frames of each verb's answer, and the state of the laptop that got them."""

    home: Path
    run_id: str
    outputs: Path
    job: Path
    root: str
    frames: dict[str, list[Said]] = field(default_factory=dict)


def command(*words: str) -> tuple[int, str, str]:
    """``gpurun`` in this process: exit code and both streams."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        run(list(words))
    out.flush(), err.flush()
    said = (stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]
    return int(ended.value.code or 0), *said  # type: ignore[return-value]


def record(folder: Path, patch: pytest.MonkeyPatch) -> Recording:
    """Runs the commands once against a real embedded box, and keeps what it said."""
    frames: dict[str, list[Said]] = {}
    honest = AgentSession.stream

    def stream(self: AgentSession, verb: str, args: dict[str, Any], **options: Any) -> Iterator[Any]:
        heard: list[Said] = []
        for frame in honest(self, verb, args, **options):
            heard.append((frame.type, frame.payload))
            if frame.type == protocol.RESULT:
                frames[verb] = max(frames.get(verb, []), heard, key=lambda each: sum(len(body) for _, body in each))
            yield frame

    patch.setenv("GPURUN_HOME", str(folder / "state"))
    patch.setenv("HF_HOME", str(folder / "hf"))
    patch.setattr(AgentSession, "stream", stream)
    job = _project(folder / "project")
    try:
        assert command("submit", str(job), "--host", "local")[0] == 0
        run_id = store.run_ids()[-1]
        for words in (["logs", "-f"], ["status"], ["checkpoints"], ["sweep"], ["fetch"], ["stop"], ["list", "--host", "local"], ["done"],
                      ["clean", "--host", "local", "--dry-run"], ["resume", "--all", "--host", "local"]):  # fmt: skip
            command(*words)
        (job.parent / "main.py").write_text(TRAIN + "# changed\n")
        assert command("submit", str(job), "--host", "local")[0] == 0
        second = store.run_ids()[-1]
        command("logs", "-f")
        root = _ask_the_rest()
        wait_until(lambda: store.load(second).status)
    finally:
        command("hosts", "forget", "local")
    shutil.rmtree(folder / "state" / "runs" / second)
    outputs = folder / "outputs"
    shutil.copytree(folder / "state/runs" / run_id / "outputs", outputs)
    shutil.rmtree(folder / "state" / "local-box")
    frames = {
        verb: [(kind, body.replace(second.encode(), run_id.encode())) for kind, body in said]
        for verb, said in frames.items()
    }
    recording = Recording(folder / "state", run_id, outputs, job, root, frames)
    _enrich(recording)
    return recording


def _project(folder: Path) -> Path:
    (folder / "corpus").mkdir(parents=True)
    (folder / "corpus" / "a.txt").write_text("a")
    (folder / "main.py").write_text(TRAIN)
    for number in range(3):
        (folder / f"part{number}.py").write_text("x = 1\n" * 50)
    body = {"name": "probe", "command": ["python3", "main.py"], "resources": {"gpus": 0}, "data": ["corpus"]}
    (folder / "job.yaml").write_text(json.dumps({**body, "outputs": ["models", "checkpoints"], "price_per_hour": 0.5}))
    return folder / "job.yaml"


def _ask_the_rest() -> str:
    """Verbs that no command reaches on a machine without a GPU."""
    with connect(resolve_or_start_host("local"), Silent()) as link:
        payload = bundle.payload()
        link.agent.install_payload(payload.sha256, payload.data)
        link.agent.install_tools(["rsync"], lambda line: None)
        link.agent.provision(
            key="py-0",
            python=None,
            requirements="",
            ranges=[],
            interpreter=sys.executable,
            interpreters=[],
            gpus=0,
            tell=lambda line: None,
        )
        link.agent.stale(kill=False, gpus=1)
        link.agent.use_gpu(0)
        link.agent.reach([PEER])
        return link.agent.root


def _enrich(recording: Recording) -> None:
    def add(verb: str, **entries: Any) -> None:
        kind, payload = recording.frames[verb][-1]
        recording.frames[verb][-1] = kind, json.dumps({**json.loads(payload), **entries}).encode()

    add("stale", ended=[STRANGER], others=[STRANGER], held=[{"gpu": 0, "bytes": 5}], survivors=[PROCESS])
    add("stop", device_holders=[{**PROCESS, "gpus": [0]}])
    have = json.loads(recording.frames["probe"][-1][1])["have"]
    add(
        "probe", gpus=[GPU], have={**have, "interpreter": None, "code": None, "data": {}}
    )  # so that all of it is asked for
    add("status", set_aside=[{"gpu": 0, "runs": ["probe-20260101-000000-0000"], "at": 5.0, "evidence": "ECC"}])
    status = json.loads(recording.frames["status"][-1][1])["runs"][0]
    status = {**status, "phase": "finished", "outcome": "interrupted", "cause": "restart"}
    facts = {"was": "running", "missing": [], "environment": None, "payload": None, "checkpoint": "step-000004"}
    started_before = {"status": status, "successor": "probe-20260101-000000-0000", **facts}
    add("recover", runs=[started_before])
    recording.frames["reach"].insert(0, (protocol.PROGRESS, json.dumps(LISTENING).encode()))
    recording.frames.setdefault("patch", [(protocol.RESULT, b'{"files": 3}')])
    shared = b'{"key": "best-0123456789abcdef01234567", "member": null, "files": 3, "bytes": 4096}'
    recording.frames["share"] = [(protocol.RESULT, shared)]
    recording.frames["compare"] = [(protocol.RESULT, b'{"differs": [{"path": "a.py", "why": "missing"}], "count": 1}')]
    line = [(protocol.PROGRESS, json.dumps({"line": "working"}).encode())]
    for verb in ("provision", "install_tools", "clean"):
        recording.frames[verb] = line + [each for each in recording.frames[verb] if each[0] == protocol.RESULT]
    gap = {"log": {"change": "gap", "generation": "1-2", "offset": 8, "bytes": 3}}
    at_end = [each for each in recording.frames["follow"] if each[0] == protocol.RESULT]
    before = [each for each in recording.frames["follow"] if each[0] != protocol.RESULT]
    recording.frames["follow"] = [*before, (protocol.PROGRESS, json.dumps(gap).encode()), *at_end]
    recording.frames["sample"] = [
        *((protocol.PROGRESS, json.dumps(each).encode()) for each in SAMPLED), (protocol.RESULT, b'{"code": 0}'),
    ]  # fmt: skip


@contextlib.contextmanager
def told(
    recording: Recording, change: Callable[[str, list[Said]], list[Said]], patch: pytest.MonkeyPatch
) -> Iterator[Agent]:
    """A laptop whose every connection reaches the recording, each answer after ``change``.

    stand_in for SSH and rsync: what a box says is changed here, not how the bytes come.
    """

    def answer(verb: str, args: dict[str, Any]) -> list[Said]:
        asked = args.get("run_id") or next(iter(args.get("run_ids") or [recording.run_id]))
        frames = [
            (kind, body.replace(recording.run_id.encode(), asked.encode())) for kind, body in recording.frames[verb]
        ]
        return change(verb, frames)

    def pull(host: Host, source: str, names: list[str], staging: Path, **options: Any) -> None:
        for name in names:
            if (recording.outputs / name).is_file():
                (staging / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(recording.outputs / name, staging / name)

    @contextlib.contextmanager
    def open_link(host: Host, first_contact: Any) -> Iterator[Link]:
        yield Link(host, replaying(answer_with(answer), recording.root), 0.001)

    _resolve_nothing(patch)
    patch.setattr(opening, "open_link", open_link)
    patch.setattr(rsync, "push", lambda *args, **options: None)
    patch.setattr(rsync, "pull", pull)
    patch.setattr(tarball, "push", lambda *args, **options: None)
    for asking in ("clean", "done"):
        patch.setattr(f"runner.cli.{asking}.confirmed", lambda question, otherwise: True)
    yield replaying(answer_with(answer), recording.root)


def _resolve_nothing(patch: pytest.MonkeyPatch) -> None:
    """Every name stands for one host, in each module that has the function. All are imported first: one that is imported later, while it is
    replaced, would keep the replacement."""
    honest = connecting.resolve_or_start_host
    for found in pkgutil.walk_packages(workflow.__path__, "runner.workflow."):
        module = importlib.import_module(found.name)
        if getattr(module, "resolve_or_start_host", None) is honest:
            patch.setattr(module, "resolve_or_start_host", lambda typed, volume=None: Host(typed, "box", 22, "root"))


def answer_with(answer: Callable[[str, dict[str, Any]], list[Said]]) -> Answer:
    return answer


def sandbox(recording: Recording, folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """A laptop of its own for one trial, in the state that the recording left."""
    shutil.copytree(recording.home, folder / "state", symlinks=True)
    shutil.copytree(recording.job.parent, folder / "project")
    (folder / "canary").mkdir()
    patch.setenv("GPURUN_HOME", str(folder / "state"))
    patch.setenv("HOME", str(folder / "canary"))
    patch.chdir(folder / "canary")
    return folder


def files_outside(folder: Path) -> list[str]:
    """Everything that lies in a trial's folder but not in the state or the target folder."""
    found = []
    for top, folders, names in os.walk(folder):
        if Path(top) == folder:
            folders[:] = [name for name in folders if name not in ("state", "target")]
        found += [os.path.join(top, name) for name in names]
    return sorted(found)
