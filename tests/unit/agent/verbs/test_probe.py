import json
import os
import subprocess
import sys
import threading

import pytest

from remote_payload.agent.box import bounded, gpus, machine, snapshot
from remote_payload.agent.box.pythons import interpreters, torch_build
from remote_payload.agent.verbs.box import probe
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import BoxPaths
from remote_payload.agent.wire.request import Request
from runner.domain.answers.box import Box


@pytest.fixture
def box(tmp_path, monkeypatch):
    monkeypatch.setattr(interpreters, "_candidates", lambda named: [*named, sys.executable])
    return BoxPaths(str(tmp_path / ".gpurun-box"))


def ask(box, **args):
    return probe.probe(Request(args, box))


def run_with_code(box, run_id, digest):
    run = box.run(run_id)
    os.makedirs(run.code)
    with open(os.path.join(run.code, "a.py"), "w") as file:
        file.write("1")
    snapshot.record_code(run, digest, read_at=77)
    return run


def test_this_machine_is_described_and_the_laptop_accepts_it(box):
    answer = json.loads(json.dumps(ask(box)))
    parsed = Box.parse(answer)
    assert parsed.root == box.root and parsed.disk_writable and 0 < parsed.disk_free <= parsed.disk_total
    assert parsed.cpus >= 1 and parsed.ram > 1 << 28 and parsed.rsync
    assert parsed.ram_free is not None and 0 < parsed.ram_free < parsed.ram
    assert answer["problems"] == {} and answer["boot_id"] and answer["disk"]["error"] is None
    assert answer["have"] == {
        "code": None, "link_dest": None, "patch": None, "data": {}, "data_link_dest": {}, "attempts": {},
        "env": False, "payload": False, "interpreter": None, "given": None, "torch": None, "program": None,
    }  # fmt: skip


def test_what_is_there_already_is_told(box):
    run = run_with_code(box, "legal-20260102-142030-9e0b", "d1")
    os.makedirs(box.env("py-1") + "/bin")
    os.symlink(sys.executable, box.env("py-1") + "/bin/python")
    os.makedirs(box.payload("a" * 64) + "/remote_payload")
    open(box.payload("a" * 64) + "/remote_payload/__init__.py", "w").close()
    for key in ("texts-aaa", "texts-bbb", "texts-more-ccc"):
        os.makedirs(box.data(key))
    os.utime(box.data("texts-aaa"), (1, 1))
    have = ask(
        box, code_digest="d1", job_name="legal", env_key="py-1", payload="a" * 64, requirements=["pytest>=7"],
        data=[{"key": "texts-ccc", "digest": "x"}],
    )["have"]  # fmt: skip
    assert (have["code"], have["link_dest"], have["patch"]) == (run.run_id, None, None)
    have_other = ask(box, code_digest="d2", job_name="legal")["have"]
    assert (have_other["code"], have_other["link_dest"]) == (None, {"path": run.code, "read_at": 77})
    assert have_other["patch"]["run_id"] == run.run_id
    assert have["env"] is True and have["payload"] is True and have["interpreter"] == sys.executable
    assert have["data"] == {"texts-ccc": False}
    assert have["data_link_dest"] == {"texts-ccc": {"path": box.data("texts-bbb"), "read_at": None}}


def test_what_earlier_pushes_brought_is_told_newest_first_and_all_but_a_few_is_removed(box):
    run, key = "legal-20260102-142030-9e0b", "texts-ccc"
    attempts = [f"{999 + number}-0a1b2c3d" for number in range(7)]
    for attempt in attempts:
        os.makedirs(box.incoming(f"{run}/{attempt}/package"))
    have = ask(box, run_id=run, data=[{"key": key, "digest": "x"}])["have"]
    assert have["attempts"] == {run: attempts[:1:-1], key: []}
    assert sorted(os.listdir(box.incoming(run))) == sorted(attempts[2:]) and os.path.isdir(box.incoming(key))


@pytest.mark.parametrize(
    "wanted", [{"requirements": ["pytest>=999"]}, {"requirements": ["-r x"]}, {"python": "3.4", "requirements": []}]
)
def test_no_interpreter_is_named_that_lacks_something(box, wanted):
    assert ask(box, **wanted)["have"]["interpreter"] is None


def test_what_a_named_interpreter_lacks_is_told_and_no_other_is_looked_for(box, monkeypatch):
    monkeypatch.setattr(interpreters, "find_satisfying", lambda *asked: pytest.fail("looked for another"))
    have = ask(box, interpreter=sys.executable, requirements=["pytest>=7", "no-such-package>=1"])["have"]
    assert have["given"] == {"error": None, "missing": ["no-such-package>=1"], "torch": None}
    assert have["interpreter"] is None and have["torch"] is None
    assert ask(box, interpreter="/no/python")["have"]["given"]["error"] == "No such file or directory"


@pytest.mark.stand_in
def test_torch_is_asked_only_where_it_is_wanted_and_there_is_a_driver(box, monkeypatch, tmp_path):
    (tmp_path / "driver").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  560.35.03  Wed\n")
    usable = torch_build.Usable(2, "")
    asked = []
    monkeypatch.setattr(torch_build, "ask", lambda path: asked.append(path) or usable)
    wanted = {"interpreter": sys.executable, "requirements": ["torch>=2.6"], "gpus": 1, "try_torch": True}
    assert ask(box, **wanted)["have"]["torch"] is None
    monkeypatch.setenv(interpreters.STAND_IN, str(tmp_path / "driver"))
    for less in ({"gpus": 0}, {"try_torch": False}, {"requirements": ["pytest"]}):
        assert ask(box, **{**wanted, **less})["have"]["torch"] is None
    assert asked == []
    assert ask(box, **wanted)["have"]["torch"] == {"interpreter": sys.executable, "gpus": 2, "why": ""}


@pytest.mark.parametrize(
    "args",
    [{"data": [{"key": "../../etc", "digest": ""}]}, {"env_key": "../x"}, {"payload": "../x"}, {"code_digest": "../x"}],
)
def test_names_that_lead_elsewhere_are_not_looked_at(box, args):
    have = ask(box, **args)["have"]
    assert not have["data"] and not have["env"] and not have["payload"] and not have["code"]


@pytest.mark.parametrize(
    ("args", "named"), [({"data": [{"key": "k"}, 7]}, r"data\[1\]"), ({"code_digest": 5}, "code_digest")]
)
def test_an_argument_of_another_type_is_refused_by_name(box, args, named):
    with pytest.raises(AgentError, match=named + " in the request is a number"):
        ask(box, **args)
    assert not os.path.exists(box.root)


def shim(tmp_path, monkeypatch, name, script):
    folder = tmp_path / "shims"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n" + script)
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_driver_that_hangs_costs_the_limit_once_and_its_gpus_are_unknown(box, tmp_path, monkeypatch):
    shim(tmp_path, monkeypatch, "nvidia-smi", "exec sleep 30")
    monkeypatch.setitem(sys.modules, "pynvml", None)  # no NVML: nvidia-smi is asked
    monkeypatch.setattr(probe, "LIMIT", 1.0)
    answer = ask(box)
    assert answer["gpus"] is None and "no answer" in answer["problems"]["gpus"]
    assert Box.parse(answer).gpus_unknown and Box.parse(answer).disk_writable


@pytest.mark.stand_in
def test_absurd_gpus_are_bounded_and_printable(box, tmp_path, monkeypatch):
    wild = [{"number": n, "uuid": f"GPU-{n}", "name": "RTX\x1b]52;c;x\x07" + "x" * 500, "memory_total": 1 << 34,
             "memory_used": 0, "utilisation": None} for n in range(99)]  # fmt: skip
    (tmp_path / "gpus.json").write_text(json.dumps(wild))
    monkeypatch.setenv("GPURUN_FAKE_GPUS", str(tmp_path / "gpus.json"))
    answer = ask(box)
    assert len(answer["gpus"]) == 64
    assert all(gpu["name"].isprintable() and len(gpu["name"]) <= 200 for gpu in answer["gpus"])
    assert len(Box.parse(answer).gpus) == 64


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts small file systems")
@pytest.mark.parametrize(
    ("options", "filled", "why"),
    [("size=32k", True, "No space left"), ("nr_inodes=1", False, "No space left"), ("ro", False, "Read-only")],
)
def test_a_full_an_inode_full_and_a_read_only_disk_are_told_apart_from_a_good_one(tmp_path, options, filled, why):
    (tmp_path / "volume").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", tmp_path / "volume"], check=True)
    try:
        found = machine.disk(str(tmp_path / "volume" / ".gpurun-box"))
    finally:
        subprocess.run(["umount", tmp_path / "volume"], check=True)
    assert found["writable"] is False and why in found["error"]
    if "inodes" in options:
        assert found["inodes_free"] == 0


@pytest.mark.parametrize(
    ("script", "version"),
    [
        ("echo 'rsync  version 3.2.7  protocol version 31'", "3.2.7"),
        ("echo 'rsync  version v3.4.1  protocol version 32'", "3.4.1"),
        ("echo 'openrsync: protocol version 29'", "29"),
        ("echo; exit 1", "unknown"),
    ],
)
def test_rsyncs_version_is_read(box, tmp_path, monkeypatch, script, version):
    shim(tmp_path, monkeypatch, "rsync", script)
    assert ask(box)["rsync"] == version


def test_a_box_without_rsync_says_so(box, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert ask(box)["rsync"] is None


def test_a_call_that_never_comes_back_does_not_hold_up_the_others():
    release = threading.Event()
    answers = bounded.gather({"hangs": lambda: release.wait(30), "fails": lambda: 1 / 0, "works": lambda: 42}, 0.2)
    release.set()
    assert isinstance(answers["hangs"], TimeoutError) and isinstance(answers["fails"], ZeroDivisionError)
    assert answers["works"] == 42


def test_a_gpu_held_by_a_run_names_it(box, monkeypatch):
    from remote_payload.agent.box import locks
    from remote_payload.agent.run.queue import giving
    from remote_payload.agent.run.queue.choice import Needs

    one = gpus.Gpu(0, f"GPU-test-{os.getpid()}", "x", 1 << 34, 0, None)
    monkeypatch.setattr(gpus, "list_gpus", lambda: [one])
    run = box.run("legal-20260102-142030-9e0b")
    os.makedirs(run.folder)
    lock = locks.take_run(run)
    giving.enter(box, run, [one], Needs(1), queue=False)
    assert ask(box)["gpus"][0]["held_by"] == run.run_id
    locks.leave_run(run, lock)
    assert ask(box)["gpus"][0]["held_by"] is None


def test_a_gpu_that_is_set_aside_says_why(box, monkeypatch):
    from remote_payload.agent.run.queue import health

    two = [gpus.Gpu(number, f"GPU-{number}", "x", 1 << 34, 0, None) for number in range(2)]
    monkeypatch.setattr(gpus, "list_gpus", lambda: two)
    for run in ("first", "second"):
        health.note_end(box, two[:1], health.End(run, False, health.DEVICE_ERROR, 1.0, "ECC"))
    why = "GPU 0 is set aside: first and second failed on it at once (ECC)"
    assert [gpu["set_aside"] for gpu in ask(box)["gpus"]] == [why, None]
