"""A container that is restarted with runs on it: its PID namespace is killed and started again, and its /dev/shm is empty.

One command starts all runs again in their old order. Over a real sshd, with real supervisors; only the GPUs are a file.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import wait_until
from tests.support.box import Box
from tests.support.box import box as box
from tests.support.boxes.container import container
from tests.support.cli import Gpurun

# Counts to 4, one number a file, from where its last one is; waits at 2 before the restart, and says what it was given.
PROGRAM = """
import os, pathlib, time
home = pathlib.Path(os.path.expanduser("~"))
name, out = os.environ["NAME"], pathlib.Path("models")
done = sorted(int(path.name) for path in out.iterdir())
def say(*words):
    with open(home / "truth", "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")
say("begin", name, os.environ.get("GPURUN_RESUME", "anew"), done[-1] if done else 0, os.environ["KEY"])
for number in range((done[-1] if done else 0) + 1, 5):
    (out / str(number)).write_text("x")
    print("step", number, flush=True)
    while number == 2 and not (home / "go").exists():
        time.sleep(0.02)
say("end", name)
"""
RAN, WAITED = ["a", "b"], ["c", "d", "e", "f", "g", "h"]


@pytest.fixture
def address(box: Box, tmp_path: Path) -> str:
    row = {"name": "x", "memory_total": 1 << 34, "memory_used": 0, "utilisation": 0}
    rows = [{"number": number, "uuid": f"GPU-{os.urandom(6).hex()}", **row} for number in range(2)]
    (tmp_path / "gpus.json").write_text(json.dumps(rows))
    box.configure(GPURUN_FAKE_GPUS=str(tmp_path / "gpus.json"))
    return box.address()


def submit(gpurun: Gpurun, job: Any, address: str, names: list[str], **fields: Any) -> dict[str, str]:
    """The run of each name, over one connection."""
    more = {"resources": {"gpus": 1}, "queue": True, "secrets": ["KEY"], **fields}
    files = [str(job(PROGRAM, name=name, environment={"variables": {"NAME": name}}, **more)) for name in names]
    runs = gpurun.json("submit", *files, "--host", address)["runs"]
    return {run["job_name"]: run["run_id"] for run in runs}


def truth(box: Box, word: str) -> list[list[str]]:
    lines = (box.home / "truth").read_text().splitlines() if (box.home / "truth").exists() else []
    return [line.split()[1:] for line in lines if line.startswith(word)]


@pytest.mark.stand_in
def test_two_running_and_six_waiting_runs_all_end_in_their_order_after_one_command(
    gpurun: Gpurun, box: Box, address: str, job: Any
) -> None:
    gpurun.env["KEY"] = "s3cret-of-this-machine"
    with container(box):
        runs = submit(gpurun, job, address, [*RAN, *WAITED, "stopped"])
        wait_until(lambda: all((gpurun.box_run(runs[name]) / "outputs" / "models" / "2").exists() for name in RAN))
        over = submit(gpurun, job, address, ["over"], command=["true"], resources={"gpus": 0})["over"]
        gpurun("logs", over, "-f")
    with container(box):
        _every_command_says_what_is_true(gpurun, address, runs)
        gpurun.env.pop("KEY")
        planned = gpurun.json("resume", "--all", "--host", address, "--dry-run", check=5)
        assert {run["why"] for run in planned["runs"]} == {"secrets that it needs are not set here: KEY"}
        gpurun.env["KEY"] = "s3cret-of-this-machine"
        planned = gpurun.json("resume", "--all", "--host", address, "--dry-run")
        assert [run["run_id"] for run in planned["runs"]] == [runs[name] for name in RAN + WAITED]
        sweep = gpurun.json("status", runs["a"])["submission"]
        assert gpurun.json("resume", "--all", sweep, "--dry-run")["boxes"] == [planned]
        assert {run["what"] for run in planned["runs"]} == {"ready"} and len(truth(box, "begin")) == 2

        said = gpurun("resume", "--all", "--host", address)
        assert said.stderr.count("connect to") == 1 and said.stdout.count("started again") == 8, said.stdout
        again = gpurun.json("resume", "--all", "--host", address)
        assert {run["what"] for run in again["runs"]} == {"went on"}
        new = {run["run_id"]: run["successor"] for run in again["runs"]}
        (box.home / "go").touch()
        for name in RAN + WAITED:
            gpurun("logs", new[runs[name]], "-f")
        begun = truth(box, "begin")[2:]
        assert sorted(words[0] for words in begun[:2]) == RAN
        for place, words in enumerate(begun[2:]):  # two GPUs: two of the queue begin at almost the same moment
            assert abs((RAN + WAITED).index(words[0]) - 2 - place) <= 1, begun
        assert [words[1:3] for words in sorted(begun)] == [["auto", "2"]] * 2 + [["anew", "0"]] * 6
        assert {words[3] for words in begun} == {"s3cret-of-this-machine"}
        assert sorted(words[0] for words in truth(box, "end")) == RAN + WAITED
        assert gpurun.json("status", new[runs["h"]])["status"]["outcome"] == "succeeded"
        assert gpurun.json("resume", "--all", "--host", address)["runs"] == again["runs"]
    _no_secret_stays(gpurun, "s3cret-of-this-machine")


def _every_command_says_what_is_true(gpurun: Gpurun, address: str, runs: dict[str, str]) -> None:
    """On the restarted box, before anything is started again. A run that is stopped now is not started again either."""
    to_type = f"gpurun resume --all --host '{address}'"
    assert "interrupted (box_restarted)" in gpurun("status", runs["a"]).stdout
    assert f"a restart of {address} interrupted 1 run: {to_type}" in gpurun("status", runs["h"]).stdout
    assert "interrupted 9 runs: " + to_type in gpurun("list", "--host", address).stderr
    assert f": {to_type}" in gpurun("list").stderr
    assert "step 2" in gpurun("logs", runs["a"]).stdout
    assert "gpurun resume --all --host HOST" in gpurun("logs", "-f", runs["b"], check=12).stderr
    assert gpurun.json("fetch", runs["a"])["complete"]
    reasons = gpurun.json("done", runs["a"], check=6)["reasons"]
    assert any(runs["b"] in reason for reason in reasons) and not any(runs["a"] in reason for reason in reasons)
    assert gpurun.json("stop", runs["stopped"])["status"]["outcome"] == "cancelled"


def _no_secret_stays(gpurun: Gpurun, secret: str) -> None:
    for root in (gpurun.box_root, gpurun.home / "runs"):
        for folder, _, files in os.walk(root):
            for name in files:
                path = Path(folder) / name
                assert path.is_symlink() or secret.encode() not in path.read_bytes(), path


@pytest.mark.stand_in
def test_a_box_that_lost_files_starts_only_what_is_whole_and_says_what_is_missing(
    gpurun: Gpurun, box: Box, address: str, job: Any, tmp_path: Path
) -> None:
    gpurun.env["KEY"] = "s3cret"
    (tmp_path / "numbers").mkdir()
    (tmp_path / "numbers" / "all.txt").write_text("1 2 3")
    with container(box):
        runs = submit(gpurun, job, address, ["a", "b", "c"], resources={"gpus": 2})
        data = [{"path": str(tmp_path / "numbers"), "as": "numbers"}]
        runs |= submit(gpurun, job, address, ["d"], resources={"gpus": 2}, data=data)
        wait_until(lambda: (gpurun.box_run(runs["a"]) / "outputs" / "models" / "2").exists())
    (gpurun.box_run(runs["b"]) / "code" / "main.py").unlink()
    (lost,) = gpurun.box_root.glob("data/numbers-*")
    shutil.rmtree(lost)
    with container(box):
        said = gpurun("resume", "--all", "--host", address, check=5).stdout
        assert "its code is not there as it was sent: main.py" in said and "its data numbers is not there" in said
        assert said.count("started again") == 2 and f"gpurun resume {runs['d']} sends what is missing" in said
        (box.home / "go").touch()
        gpurun("resume", runs["d"])
        gpurun("logs", "-f")
        assert [words[0] for words in truth(box, "end")] == ["a", "c", "d"]


@pytest.mark.stand_in
def test_keep_starts_them_again_by_itself_as_soon_as_the_box_answers(
    gpurun: Gpurun, box: Box, address: str, job: Any
) -> None:
    gpurun.env["KEY"] = "s3cret"
    with container(box):
        runs = submit(gpurun, job, address, ["a", "b", "c"], resources={"gpus": 2})
        wait_until(lambda: (gpurun.box_run(runs["a"]) / "outputs" / "models" / "2").exists())
        keeping = gpurun.start("keep", runs["a"], runs["b"], "--recover", "--json")
        wait_until(lambda: (gpurun.home / "runs" / runs["a"] / "events.jsonl").exists())
    with container(box):
        (box.home / "go").touch()
        out, err = keeping.communicate(timeout=120)
        assert keeping.returncode == 0, (out, err)
        wait_until(lambda: len(truth(box, "end")) == 3)
    kept = {run["run_id"]: run for run in json.loads(out)["runs"]}
    new = {run["parent"]: run for run in kept.values() if run["parent"]}
    assert set(new) == {runs["a"], runs["b"]} and {run["error"] for run in kept.values()} == {None}
    assert {run["status"]["outcome"] for run in new.values()} == {"succeeded"}
    assert [words[0] for words in truth(box, "begin")] == ["a", "a", "b", "c"]
    outputs = gpurun.home / "runs" / new[runs["a"]]["run_id"] / "outputs" / "models"
    assert sorted(path.name for path in outputs.iterdir()) == ["1", "2", "3", "4"]
