"""What is said of a box holds for all of it, and of a run for that run: nothing older or cached stands in."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from tests.support.box import Box
from tests.support.box import box as box
from tests.support.cli import Gpurun

MODEL = 'import pathlib; pathlib.Path("models/w").write_text("w"); print("trained")'


def over(gpurun: Gpurun, file: Any, *words: str) -> str:
    run_id = gpurun.submit(file, *words)
    gpurun("logs", run_id, "-f")
    return run_id


def test_a_box_is_not_safe_while_another_run_lies_only_there_whoever_started_it(gpurun: Gpurun, job: Any) -> None:
    first, second = over(gpurun, job(MODEL)), over(gpurun, job(MODEL, name="other", price_per_hour=1.5))
    gpurun("fetch", second)
    said = gpurun.json("done", second, check=6)
    assert len(said["reasons"]) == 1 and f"gpurun fetch {first}" in said["reasons"][0]
    assert gpurun.json("done", second, "--give-up", first)["safe_to_destroy"]
    gpurun("fetch", first)
    assert gpurun.json("done", second)["home"] == sorted([first, second])

    shutil.rmtree(gpurun.home / "runs" / first)  # as on another laptop, which has no record of it
    said = gpurun.json("done", second, check=6)
    assert "this machine has no record" in said["reasons"][0] and f"--give-up {first}" in said["reasons"][0]
    gpurun("clean", "--host", "local", "--yes")
    assert gpurun.box_run(first).exists() and not gpurun.box_run(second).exists()
    assert "is on the box" in gpurun("done", second, "--give-up", "nothing", check=2).stderr
    gpurun("clean", "--host", "local", "--yes", first)
    assert not gpurun.box_run(first).exists()


def test_a_run_that_never_started_is_never_replaced_by_an_older_one(gpurun: Gpurun, job: Any) -> None:
    old = over(gpurun, job(MODEL))
    gpurun("submit", str(job(MODEL)), "--host", "local", "--set", "resources.gpus=8", check=3)
    refused = gpurun.json("list")["runs"][-1]["run_id"]
    for words in (
        ["logs"],
        ["fetch"],
        ["done"],
        ["resume"],
        ["stop"],
        ["checkpoints"],
        ["smoke-test"],
        ["logs", "probe"],
    ):
        error = gpurun.json(*words, check=5)["error"]
        assert refused in error["message"] and f"--run {refused}" in error["hint"], words
        assert words[-1] == "probe" or old in error["hint"], words
    assert f"--run {refused}" in gpurun("status").stdout and "not started" in gpurun("status").stdout
    assert "trained" in gpurun("logs", old).stdout


def test_a_failed_resume_leaves_no_trace_and_a_good_one_belongs_to_the_same_submission(
    gpurun: Gpurun, job: Any
) -> None:
    old = over(gpurun, job(MODEL, price_per_hour=1.5, sweep={"environment.variables.LR": ["1"]}))
    gpurun("resume", "--set", "resources.gpus=8", check=3)
    assert [run["run_id"] for run in gpurun.json("list")["runs"]] == [old]
    before, after = gpurun.json("status"), gpurun.json("resume")
    gpurun("logs", "-f")
    for field in ("experiment", "submission", "host", "job_name"):
        assert before[field] == after[field] and before[field], field
    assert after["parent"] == old and gpurun.json("status")["cost"] is not None


def test_a_resume_that_failed_while_it_sent_is_kept_with_its_reason(gpurun: Gpurun, job: Any) -> None:
    old = over(gpurun, job(MODEL))
    job(MODEL + "  # edited: it has to be sent")
    (gpurun.box_root / "incoming").rmdir()
    (gpurun.box_root / "incoming").write_text("in the way")
    error = gpurun.json("resume", check=4)["error"]
    last = gpurun.json("status")
    assert last["parent"] == old and last["not_started"]["message"] == error["message"]
    for words in (["logs"], ["fetch"], ["done"]):
        said = gpurun.json(*words, check=5)["error"]
        assert last["run_id"] in said["message"] and error["message"] in said["message"]
        assert f"gpurun resume {old} --host local" in said["hint"], words
    (gpurun.box_root / "incoming").unlink()
    assert gpurun.json("resume", old)["parent"] == old


def test_a_run_that_its_box_does_not_know_is_lost(gpurun: Gpurun, job: Any) -> None:
    run_id = over(gpurun, job(MODEL))
    record = gpurun.home / "runs" / run_id / "run.json"
    record.write_text(record.read_text().replace('"finished"', '"running"').replace('"succeeded"', "null"))
    shutil.rmtree(gpurun.box_root / "runs")  # another box at this address
    said = gpurun.json("status", check=12)
    assert said["status"]["outcome"] == "lost" and "not on that box" in gpurun("status", check=12).stdout
    for words in (["resume"], ["done"], ["fetch"], ["stop"]):
        assert gpurun.json(*words, check=12)["error"]["exit_code"] == 12, words
    assert [run["run_id"] for run in gpurun.json("list")["runs"]] == [run_id]


def test_a_replaced_box_that_has_another_key_is_never_answered_for_from_memory(
    gpurun: Gpurun, box: Box, job: Any
) -> None:
    gpurun("submit", str(job(MODEL)), "--host", box.address())
    (run,) = gpurun.json("list")["runs"]
    record = gpurun.home / "runs" / run["run_id"] / "run.json"
    running = {**json.loads(record.read_text()), "status": {**run["status"], "phase": "running", "outcome": None}}
    record.write_text(json.dumps(running))
    box.rekey()
    for words in (["status"], ["done"], ["resume"], ["clean", "--dry-run"]):
        assert gpurun.json(*words, check=3)["error"]["kind"] == "HostKeyChanged", words
    assert len(gpurun.json("list")["runs"]) == 1


def test_a_limit_on_the_command_line_ends_the_run_that_says_why(gpurun: Gpurun, job: Any) -> None:
    program = "import time\nprint('on', flush=True)\ntime.sleep(60)"
    file = job(program, price_per_hour=3600.0, time_limit="1h")
    assert (
        "cost_limit needs price_per_hour"
        in gpurun("submit", str(job(program, name="free")), "--host", "local", "--cost-limit", "1", check=2).stderr
    )
    run_id = gpurun.submit(file, "--cost-limit", "1.5")
    assert gpurun.json("status", run_id)["cost"] is not None
    gpurun("logs", run_id, "-f", check=10)
    said = gpurun.json("list", "--host", "local")["runs"][0]
    assert (said["status"]["outcome"], said["status"]["cause"]) == ("timed_out", "cost_limit")
    assert 1.5 <= said["cost"] < 40 and f"{said['cost']:.2f}" in gpurun("list", "--host", "local").stdout


def test_a_dry_run_of_several_jobs_is_one_document_over_one_connection(gpurun: Gpurun, job: Any) -> None:
    files = [str(job(MODEL, name=name)) for name in ("one", "two")]
    said = gpurun.json("submit", *files, "--host", "local", "--dry-run")
    assert said["ready"] and [each["job"] for each in said["jobs"]] == ["one", "two"]
    shown = gpurun("submit", *files, "--host", "local", "--dry-run", "--set", "resources.gpus=8", check=3)
    assert shown.stderr.count("connect to") == 1 and shown.stdout.count("NOT ready") == 2


@pytest.mark.parametrize(
    "words", [["list", "--no-such"], ["nothing"], ["submit", "job.yaml"], ["clean"], ["logs", "--tail", "x"]]
)
def test_wrong_usage_is_a_document_too(gpurun: Gpurun, words: list[str]) -> None:
    error = gpurun.json(*words, check=2)["error"]
    assert "integer range" not in error["message"]
    assert error["exit_code"] == 2 and error["message"] and "--help" in error["hint"]


def test_logs_json_of_a_failed_run_is_one_document_and_its_exit_code(gpurun: Gpurun, job: Any) -> None:
    gpurun.submit(job("raise SystemExit(3)"))
    said = gpurun.json("logs", "-f", check=10)
    assert said["status"]["outcome"] == "failed" and said["log"].endswith("/log")
    assert "last good checkpoint" not in gpurun("logs", "-f", check=10).stderr  # it has none
