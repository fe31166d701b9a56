"""A box that lies about itself, its runs and its results, over real SSH."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.boxes.liar import Liar
from tests.support.boxes.liar import liar as liar
from tests.support.cli import Gpurun
from tests.support.figures import Record

TRAIN = """
import pathlib
pathlib.Path("models").mkdir(exist_ok=True)
pathlib.Path("models/weights").write_bytes(b"w" * 100000)
print("trained")
"""
NASTY = "\x1b]52;c;aGFja2Vk\x07\x1b]0;title\x07\x1bP+q\x1b\\\x9b5n\x1b[2J\u202e"
MEMORY = 1024  # MiB that a client may take while a box sends the worst it can
HOME = "memory of the client under hostile frames"


@pytest.fixture
def trained(gpurun: Gpurun, liar: Liar, job: Any) -> str:
    """A run that ended on an honest box."""
    run_id = gpurun.submit(job(TRAIN))
    gpurun("logs", "-f")
    return run_id


def refused(gpurun: Gpurun, *words: str, codes: tuple[int, ...] = (3, 4, 6)) -> str:
    """What gpurun says of it; no traceback, no bug of its own, no control sequence."""
    began = time.monotonic()
    done = gpurun(*words, check=None)
    assert done.returncode in codes, (done.returncode, done.stderr)
    assert "bug of gpurun" not in done.stderr
    assert not set(done.stdout + done.stderr) & set("\x1b\x07\x9b\x90\x9d\u202e")
    assert time.monotonic() - began < 75
    return done.stderr


MANIFESTS = {
    "not there": '[{"path": "models/ghost", "size": 5, "sha256": "0" * 64}]',
    "one bit": '[{"path": "models/weights", "size": 100000, "sha256": "0" * 64}]',
    "smaller": '[{"path": "models/weights", "size": 10, "sha256": "0" * 64}]',
    "larger": '[{"path": "models/weights", "size": 100001, "sha256": "0" * 64}]',
    "upwards": '[{"path": "../../../../escaped", "size": 5, "sha256": "0" * 64}]',
    "absolute": '[{"path": "/tmp/escaped", "size": 5, "sha256": "0" * 64}]',
    "our own notes": '[{"path": ".gpurun-fetched.json", "size": 5, "sha256": "0" * 64}]',
    "a repository": '[{"path": ".GIT/config", "size": 5, "sha256": "0" * 64}]',
    "escapes": '[{"path": "models/" + chr(27) + "]0;x" + chr(7), "size": 5, "sha256": "0" * 64}]',
    "many exabytes": '[{"path": "models/weights", "size": 1 << 62, "sha256": "0" * 64}]',
    "many terabytes": '[{"path": "models/weights", "size": 1 << 49, "sha256": "0" * 64}]',
    "case": '[{"path": p, "size": 5, "sha256": "0" * 64} for p in ("models/A", "models/a")]',
    "numbers": "[1, 2, 3]",
    "no list": '"models"',
}


@pytest.mark.slow
def test_a_manifest_that_is_not_true_brings_nothing_under_a_final_name(
    gpurun: Gpurun, trained: str, liar: Liar, figure: Record, tmp_path: Path
) -> None:
    into = tmp_path / "deep" / "er" / "home"
    for name, files in MANIFESTS.items():
        liar.says(f"def manifest(request):\n    return {{'complete': True, 'files': {files}}}\n")
        said = refused(gpurun, "fetch", "--into", str(into))
        assert said, name
        kept = [
            path for path in (tmp_path / "deep").rglob("*") if path.is_file() and ".gpurun-staging" not in path.parts
        ]
        figure("escapes from staging", len(kept) + (Path("/tmp") / "escaped").exists(), 0)


@pytest.mark.slow
def test_a_manifest_that_names_what_is_elsewhere_by_links_brings_nothing_of_it(
    gpurun: Gpurun, trained: str, liar: Liar, figure: Record, tmp_path: Path
) -> None:
    """The box turns folders into links and files into devices after it has made its list."""
    outputs = gpurun.box_run(trained) / "outputs"
    (outputs / "models" / "weights").rename(outputs / "kept")
    (outputs / "models").rename(outputs / "old")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "weights").write_bytes(b"w" * 100000)
    (outputs / "models").symlink_to(tmp_path / "secret")
    os.mkfifo(outputs / "pipe")
    (outputs / "zero").symlink_to("/dev/zero")
    for path in ("models/weights", "pipe", "zero"):
        entry = f'{{"path": {path!r}, "size": 100000, "sha256": "0" * 64}}'
        liar.says(f"def manifest(request):\n    return {{'complete': True, 'files': [{entry}]}}\n")
        refused(gpurun, "fetch", "--into", str(tmp_path / "home"))
        brought = [
            each
            for each in (tmp_path / "home").rglob("*")
            if each.is_symlink() or not (each.is_dir() or each.is_file())
        ]
        final = [each for each in (tmp_path / "home").iterdir() if not each.name.startswith(".gpurun")]
        figure("escapes from staging", len(brought) + len(final), 0)


GROWS = """
import os, threading
def manifest(request):
    path = os.path.join(str(request.paths.run(request.args["run_id"]).outputs), "models", "weights")
    with open(path, "r+b") as file:
        file.truncate({size})
    return {{"complete": True, "files": [{{"path": "models/weights", "size": 100000, "sha256": "0" * 64}}]}}
"""


@pytest.mark.parametrize("size", [pytest.param(1 << 40, id="a sparse terabyte")])
def test_50_a_file_that_became_larger_than_the_list_says_is_not_fetched(
    gpurun: Gpurun, trained: str, liar: Liar, tmp_path: Path, size: int
) -> None:
    liar.says(GROWS.format(size=size))
    said = refused(gpurun, "fetch", "--into", str(tmp_path / "home"))
    assert "models/weights" in said
    assert sum(each.stat().st_blocks * 512 for each in (tmp_path / "home").rglob("*") if each.is_file()) < 10 << 20


STATUSES = {
    "phase": '{"phase": "resting"}',
    "outcome": '{"phase": "finished", "outcome": chr(27) + "[2J"}',
    "numbers": '{"phase": "running", "log_size": -5}',
    "huge": '{"phase": "running", "started_at": 10 ** 300}',
    "nothing": "{}",
}


@pytest.mark.slow
def test_a_status_that_cannot_be_is_refused(gpurun: Gpurun, job: Any, liar: Liar) -> None:
    run_id = gpurun.submit(job("import time\nprint('up', flush=True)\ntime.sleep(600)"))
    for name, status in STATUSES.items():
        liar.says(f"def status(request):\n    return {{'runs': [dict({status}, run_id={run_id!r})]}}\n")
        assert "reported an impossible value for status.runs[0]" in refused(gpurun, "status"), name
    liar.says("")
    gpurun("stop", "--grace", "0")


WILD = """
def status(request):
    progress = {
        'step': {'step': NASTY, 'total': [NASTY], 'loss': NASTY, 'ms': -1e300}, 'eval': {'metrics': NASTY},
        'flag': {'message': NASTY}, 'checkpoint': {'name': NASTY}, 'hardware': {'gpus': [{'name': NASTY, 'x': 1e300}], 'cpu': NASTY},
        NASTY: [1], 'x': 3,
    }
    told = {'cause': NASTY, 'evidence': NASTY + 'why', 'advice': NASTY, 'generation': NASTY, 'progress': progress}
    rest = {'orphaned': False, 'stalled': False, 'gpus': [0], 'log_size': 0, 'other': NASTY}
    return {'runs': [{'run_id': request.args['run_ids'][0], 'phase': 'running', **told, **rest}]}
"""


def test_names_and_events_full_of_escapes_leave_the_terminal_alone(gpurun: Gpurun, job: Any, liar: Liar) -> None:
    """Also on a terminal, where colours are shown: a pseudo-terminal by ``script``."""
    gpurun.submit(job("import time\nprint('up', flush=True)\ntime.sleep(600)"))
    liar.says(f"NASTY = {NASTY!r}" + WILD)
    for words in (["status"], ["list"]):
        shown = gpurun(*words).stdout
        assert not set(shown) & set("\x1b\x07\x9b\x90\x9d\u202e"), words
        done = subprocess.run(
            ["script", "-qec", " ".join(gpurun.argv(*words)), "/dev/null"],
            env={**gpurun.environment(), "TERM": "xterm"}, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        for sequence in ("\x1b]52", "\x1b]0;", "\x1bP", "\x9b", "\x1b[2J", "\u202e"):
            assert sequence not in done.stdout, words
    liar.says("")
    gpurun("stop", "--grace", "0")


PROBES = {
    "gpus": "answer['gpus'] = [dict(index=i, name='GPU', uuid='', memory_total=1, memory_used=0) for i in range(99)]",
    "memory": "answer['ram'] = 10 ** 40",
    "negative": "answer['disk']['free'] = -1",
    "text": "answer['cpus'] = 'many'",
    "a list": "answer['disk'] = [1]",
    "root": "answer['have'] = 7",
}


@pytest.mark.slow
def test_15_probe_answers_that_cannot_be_are_refused_before_anything_is_sent(
    gpurun: Gpurun, liar: Liar, job: Any
) -> None:
    file = job(TRAIN)
    for name, change in PROBES.items():
        liar.says(
            "from remote_payload.agent.verbs.box.probe import probe as honest\n"
            f"def probe(request):\n    answer = honest(request)\n    {change}\n    return answer\n"
        )
        assert "reported an impossible value" in refused(gpurun, "submit", str(file), "--host", "local"), name
    assert not (gpurun.box_root / "runs").exists() or not list((gpurun.box_root / "runs").iterdir())


def test_15_an_escape_in_the_name_of_a_gpu_is_not_shown(gpurun: Gpurun, liar: Liar, job: Any) -> None:
    liar.says(
        f"NASTY = {NASTY!r}\nfrom remote_payload.agent.verbs.box.probe import probe as honest\n"
        "def probe(request):\n    answer = honest(request)\n"
        "    answer['gpus'] = [dict(index=0, name='RTX' + NASTY + '4090', uuid='', memory_total=1 << 34, memory_used=0)]\n"
        "    answer['driver'] = answer['os'] = NASTY\n    return answer\n"
    )
    checked = gpurun("check", str(job(TRAIN, resources={"gpus": 1})), "--host", "local", check=None)
    assert "RTX" in checked.stdout + checked.stderr
    assert not set(checked.stdout + checked.stderr) & set("\x1b\x07\x9b\x90\x9d\u202e")


# What speaks in the agent's place, after its greeting: frames that no agent sends.
INSTEAD = """
import os, struct, sys, time
def frame(kind, stream, payload, length=None):
    return struct.pack(">cII", kind, stream, len(payload) if length is None else length) + payload
def out(data):
    view = memoryview(data)
    while view:
        view = view[os.write(1, view):]
def flood(data, times):
    for _ in range(times):
        out(data)
    out(frame(b"Z", 1, b""))
def instead(nonce):
    out((nonce + " ready 1 /tmp/nowhere/.gpurun-box\\n").encode())
    {body}
"""
FRAMES = {
    "of 4 GB": 'out(frame(b"R", 1, b"{{}}", 0xFFFFFFFF)); time.sleep(1)',
    "of no known type": 'out(frame(b"Z", 1, b""))',
    "torn": 'out(frame(b"R", 1, b"{{}}", 100))',
    "no JSON": 'out(frame(b"R", 1, b"\\xff{{"))',
    "deep JSON": 'out(frame(b"R", 1, b"[" * 5000000))',
    "a list": 'out(frame(b"R", 1, b"[]"))',
    "items": 'out(frame(b"R", 1, b\'{{"a":[\' + b"[]," * 20000000 + b"[]]}}"))',
    "objects": 'out(frame(b"R", 1, b\'{{"a":[\' + b"0.1," * 3900000 + b"0]}}"))',
    "text": 'out(frame(b"R", 1, b\'{{"a":"\' + "\\U0001f600".encode() * 16000000 + b\'"}}\'))',
    "an endless error": 'out(frame(b"E", 1, b\'{{"kind":"HostError","message":"\' + b"x" * (9 << 20) + b\'"}}\'))',
    "a flood of progress": 'flood(frame(b"P", 1, b\'{{"a":"\' + b"x" * (4 << 20) + b\'"}}\'), 100)',
    "a flood of log": 'flood(frame(b"L", 1, b"\\0" * 8 + b"x" * (1 << 20)), 600)',
}
QUICK = ("of 4 GB", "no JSON")
# A small process between the test and the client: the kernel's peak of a process that was forked and then replaced
# includes the forker's own memory, which here is a pytest with torch loaded.
MEASURED = """
import os, resource, subprocess, sys
resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[] if each in QUICK else pytest.mark.slow) for each in FRAMES]
)
def test_hostile_frames_end_in_a_message_and_memory_is_bounded(
    gpurun: Gpurun, liar: Liar, figure: Record, name: str
) -> None:
    liar.says(INSTEAD.format(body=FRAMES[name].replace("{{", "{").replace("}}", "}")))
    measured = subprocess.run(
        [sys.executable, "-S", "-c", MEASURED, *gpurun.argv("list", "--host", "local")],
        env={**gpurun.environment()}, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    *shown, used = measured.stderr.splitlines()
    assert measured.returncode in (0, 3), measured.stderr
    assert shown or not measured.returncode, "refused without a word"
    assert "Traceback" not in measured.stderr and "bug of gpurun" not in measured.stderr
    figure(HOME, int(used) / 1024, MEMORY, "MiB")


@pytest.mark.slow
def test_an_endless_greeting_is_given_up(gpurun: Gpurun, liar: Liar) -> None:
    liar.says(
        f"import os\ndef instead(nonce):\n    while True:\n        os.write(1, ({NASTY!r} + 'welcome ' * 1000).encode())\n"
    )
    assert "login shell" in refused(gpurun, "list", "--host", "local")


def test_log_bytes_that_do_not_follow_are_refused(gpurun: Gpurun, trained: str, liar: Liar) -> None:
    other = gpurun.submit(json_job(gpurun))
    liar.says("def follow(request):\n    request.log(1 << 40, b'later')\n    return {}\n")
    assert "left out" in refused(gpurun, "logs", "-f", other)
    liar.says(
        "def follow(request):\n    request.progress({'log': {'change': 'gap', 'offset': -1, 'bytes': 1 << 80}})\n    return {}\n"
    )
    assert "reported an impossible value" in refused(gpurun, "logs", "-f", other)
    liar.says("")
    gpurun("stop", other, "--grace", "0")


def json_job(gpurun: Gpurun) -> Path:
    """A job that waits, beside the one of the fixture."""
    folder = gpurun.home.parent / "waiting"
    folder.mkdir()
    (folder / "main.py").write_text("import time\ntime.sleep(600)\n")
    body = {"name": "waiting", "command": ["python3", "main.py"], "resources": {"gpus": 0}}
    (folder / "job.yaml").write_text(json.dumps(body))
    return folder / "job.yaml"
