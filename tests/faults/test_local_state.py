"""Records that are torn, shared, out of room or older than this gpurun."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner import store
from runner.cli.group import run
from runner.domain import places
from runner.domain.answers.manifest import Artifact
from runner.domain.answers.status import Status
from runner.domain.errors import DiskTrouble, GpurunError
from runner.domain.host import Host
from runner.domain.job import Job
from runner.domain.run import Run, mint_id
from runner.host_notes import host_notes, note_reached
from runner.transport import known_hosts
from runner.workflow.fetching.receipt import Receipt
from tests.support.box import only_as_root
from tests.support.cli import Gpurun
from tests.support.figures import Record

OLD = Path(__file__).with_name("state_of_0_1_0")
OLD_RUN = "legal-20261103-090000-1a2b"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state of an older gpurun, as it lay on a laptop."""
    shutil.copytree(OLD, tmp_path / "state")
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def said(*words: str) -> tuple[int, str, str]:
    """The command in this process: exit code and both streams. What escapes ``main`` is a traceback, and fails the test."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        run(list(words))
    out.flush()
    assert "bug of gpurun" not in err.getvalue() and "Traceback" not in err.getvalue(), err.getvalue()
    return int(ended.value.code or 0), out.buffer.getvalue().decode(), err.getvalue()


def test_the_state_of_an_older_gpurun_is_read(home: Path) -> None:
    code, listed, _ = said("list", "--json")
    assert code == 0 and [run["run_id"] for run in json.loads(listed)["runs"]] == [OLD_RUN]
    assert json.loads(listed)["runs"][0]["status"]["outcome"] == "succeeded"
    assert said("logs")[1] == (home / "runs" / OLD_RUN / "log").read_text()
    assert json.loads(said("status", "--json")[1])["status"]["outcome"] == "succeeded"
    hosts = json.loads(said("hosts", "--json")[1])["hosts"]
    assert hosts[0]["fingerprints"][0].startswith("ssh-ed25519 SHA256:")


COMMANDS = (("list",), ("status",), ("logs",), ("hosts",), ("list", "--json"))
FILES = ("hosts.json", "known_hosts", f"runs/{OLD_RUN}/run.json", f"runs/{OLD_RUN}/log", f"runs/{OLD_RUN}/events.jsonl")


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=pytest.mark.slow if each.endswith("run.json") else []) for each in FILES]
)
def test_61_a_state_file_cut_at_any_byte_is_recovered_or_named(home: Path, figure: Record, name: str) -> None:
    """The commands that ask nobody, at every length of every file; a log that is short asks its box, which is not there."""
    file = home / name
    whole = file.read_bytes()
    words = [words for words in COMMANDS if not (name.endswith(("log", "jsonl")) and words == ("logs",))]
    wrong = 0
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        for each in (words[length % len(words)], ("list", "--json")):
            code, out, err = said(*each)
            assert code in (0, 2) and (code == 0 or "error: " in err), (length, each, err)
            if each == ("list", "--json"):
                wrong += any(
                    run["run_id"] != OLD_RUN or run["host"] != "root@203.0.113.7:41022"
                    for run in json.loads(out)["runs"]
                )
    figure("wrong runs read from torn records", wrong, 0)


def test_61_a_torn_pin_is_never_taken_for_no_pin(home: Path) -> None:
    whole = places.known_hosts().read_bytes().rstrip(b"\n")
    first = whole.index(b" ")
    key = known_hosts.pinned(places.known_hosts(), "[203.0.113.7]:41022")
    for length in range(1, len(whole)):
        places.known_hosts().write_bytes(whole[:length])
        try:
            assert known_hosts.pinned(places.known_hosts(), "[203.0.113.7]:41022") == key and length > first
        except GpurunError as error:
            assert "known_hosts:1" in error.message and error.hint


def test_61_a_torn_receipt_never_says_that_a_file_is_home(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"m" * 100)
    artifact, other = Artifact("model", 100, "0" * 64), Artifact("model", 100, "1" * 64)
    receipt = Receipt(tmp_path)
    receipt.note(artifact)
    receipt.save()
    file = next(tmp_path.glob(".gpurun-*"))
    whole = file.read_bytes()
    assert Receipt(tmp_path).has(artifact) and not Receipt(tmp_path).has(other)
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        assert not Receipt(tmp_path).has(artifact)


@pytest.mark.slow
def test_61_the_embedded_box_recovers_from_torn_files_of_its_own(gpurun: Gpurun) -> None:
    gpurun("list", "--host", "local")
    folder = gpurun.home / "local-box"
    for name in ("port", "sshd.pid", "sshd_config", "authorized_keys"):
        whole = (folder / name).read_bytes()
        subprocess.run(["kill", (folder / "sshd.pid").read_text().strip()], check=False)  # which removes its own file
        (folder / name).write_bytes(whole[:3])
        gpurun("list", "--host", "local")


def make_run() -> Run:
    run = Run(mint_id("both"), Job("both").at(Path("/")), "local", 1.0)
    store.create(run)
    return run


def test_62_two_writers_of_one_record_keep_each_others_fields(home: Path) -> None:
    """As ``logs -f`` and ``fetch`` do: each knows an older record, and changes fields of its own."""
    run = make_run()
    following, fetching = store.load(run.run_id), store.load(run.run_id)

    def follow() -> None:
        for number in range(200):
            store.update(following, status=Status(run.run_id, "running", log_size=number))

    def fetch() -> None:
        for number in range(200):
            store.update(fetching, fetched_into=f"/home/{number}")

    threads = [threading.Thread(target=each) for each in (follow, fetch)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = store.load(run.run_id)
    assert record.status and (record.status.log_size, record.fetched_into) == (199, "/home/199")


def test_62_hosts_noted_at_once_are_all_remembered(home: Path) -> None:
    hosts = [Host(f"host-{number}", "box", 22, "root") for number in range(40)]
    threads = [threading.Thread(target=note_reached, args=(host, "", None)) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {f"host-{number}" for number in range(40)} < set(host_notes())


@pytest.mark.slow
def test_62_several_gpurun_at_once_do_not_hurt_each_other(gpurun: Gpurun, job: Any) -> None:
    run_id = gpurun.submit(
        job(
            "print('x' * 100000)\nimport pathlib\npathlib.Path('models').mkdir(exist_ok=True)\npathlib.Path('models/a').write_text('a')"
        )
    )
    started = [
        gpurun.start(*words) for words in (["logs", "-f"], ["fetch"], ["logs", "-f"], ["status"], ["fetch"], ["list"])
    ]
    codes = [(process.communicate(timeout=240), process.returncode)[1] for process in started]
    assert set(codes) <= {0, 6}, codes  # 6: another gpurun is fetching, or nothing is complete yet
    gpurun("fetch")
    log = (gpurun.home / "runs" / run_id / "log").read_bytes()
    assert log == (gpurun.box_run(run_id) / "log").read_bytes()
    assert gpurun.json("done")["safe_to_destroy"]


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A disk with an older state on it and 0 bytes left."""
    only_as_root()
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], check=True)
    shutil.copytree(OLD, disk / "state")
    with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as filler:
        while filler.write(b"\0" * 4096):
            pass
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_64_a_full_disk_here_is_said_and_corrupts_nothing(
    full: Path, monkeypatch: pytest.MonkeyPatch, job: Any
) -> None:
    monkeypatch.setenv("GPURUN_HOME", str(full / "state"))
    record = full / "state/runs" / OLD_RUN / "run.json"
    before = {file: file.read_bytes() for file in (full / "state").rglob("*") if file.is_file()}
    code, _, err = said("submit", str(job("print(1)")), "--host", "root@127.0.0.1:1")
    assert code == 1 and "the disk of this machine is full" in err and "Free some space" in err
    with pytest.raises(DiskTrouble, match=r"hosts.json cannot be written, 0 B are free"):
        note_reached(Host("another", "box", 22, "root"), "", None)
    for file, content in before.items():
        assert file.read_bytes() == content, file
    with pytest.raises(DiskTrouble, match=r"run\.json"):
        store.update(store.load(OLD_RUN), done=True)
    assert record.read_bytes() == before[record]
    os.unlink(full / "filler")
    store.update(store.load(OLD_RUN), done=True)
    assert store.load(OLD_RUN).done
