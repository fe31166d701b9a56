"""The real command over a real sshd: every command of the command line, on runs of a user's own."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Gpurun

TRAIN = """
import json, os, pathlib, sys, time
print("hello from", os.environ["GPURUN_RUN_ID"], flush=True)
with open(os.environ["GPURUN_EVENTS"], "a") as events:
    events.write(json.dumps({"t": time.time(), "type": "step", "step": 3, "total": 4, "loss": 0.5}) + "\\n")
pathlib.Path("models/best").mkdir(parents=True)
pathlib.Path("models/best/weights.json").write_text("[1, 2, 3]")
print("done")
"""
WAIT = """
import os, pathlib, time
print("waiting", flush=True)
while not os.path.exists("/proc/self/cwd/go"):
    time.sleep(0.05)
"""


def await_line(gpurun: Gpurun, run_id: str, text: str) -> None:
    """Waits until the run's log on the box holds ``text``."""
    log, deadline = gpurun.box_run(run_id) / "log", time.monotonic() + 60
    while text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def test_submit_logs_fetch_status_list_done(gpurun: Gpurun, job: Any, tmp_path: Path) -> None:
    run_id = gpurun.submit(job(TRAIN))
    out = gpurun("logs", "-f").stdout
    assert f"hello from {run_id}" in out and out.endswith("done\n")
    assert gpurun("logs").stdout == out  # from the local copy: the box need not be asked
    assert gpurun("logs", "--tail", "1").stdout == "done\n"

    status = gpurun.json("status")
    assert status["status"]["outcome"] == "succeeded" and status["status"]["progress"]["step"]["loss"] == 0.5
    assert [line["run_id"] for line in gpurun.json("list")["runs"]] == [run_id]
    assert [run["run_id"] for run in gpurun.json("list", "--host", "local")["runs"]] == [run_id]

    unfetched = gpurun.json("done", check=6)
    assert not unfetched["safe_to_destroy"] and "not home" in unfetched["reasons"][0]
    fetched = gpurun.json("fetch", "--into", str(tmp_path / "home"))
    assert (tmp_path / "home/models/best/weights.json").read_text() == "[1, 2, 3]"
    assert fetched["complete"] and len(fetched["new"]) == 1
    assert gpurun.json("fetch")["kept"] == 1
    assert gpurun.json("done")["safe_to_destroy"]


def test_a_fetch_leaves_a_page_about_the_run(gpurun: Gpurun, job: Any) -> None:
    """Though nothing of its log or events was here before."""
    run_id = gpurun.submit(job(TRAIN))
    gpurun("wait")
    fetched = gpurun.json("fetch")
    page = Path(fetched["report"]).read_text("utf-8")
    assert "succeeded" in page and f"hello from {run_id}" in page and "<figcaption>loss</figcaption>" in page
    assert gpurun.json("report") == {"path": fetched["report"], "bytes": len(page.encode()), "notes": []}


def test_the_log_comes_home_with_the_outputs_and_its_lines_have_times_on_demand(gpurun: Gpurun, job: Any) -> None:
    run_id = gpurun.submit(job(TRAIN, outputs=["models", "logs"]))
    begun = time.time()
    plain = gpurun("logs", "-f", "--raw").stdout
    timed = gpurun("logs", "-f", "--timestamps").stdout.splitlines()
    assert [line[21:] for line in timed] == plain.splitlines()
    for line in timed:
        assert abs(time.mktime(time.strptime(line[:19], "%Y-%m-%d %H:%M:%S")) - begun) < 30
    assert gpurun("logs", "--timestamps", "--tail", "1").stdout.splitlines() == timed[-1:]
    assert "--raw and --json" in gpurun("logs", "--timestamps", "--raw", check=2).stderr
    outputs = Path(gpurun.json("fetch")["into"])
    assert (outputs / "logs/run.log").read_text() == (gpurun.box_run(run_id) / "log").read_text() == plain


def test_what_is_printed_for_people_is_plain_in_a_pipe(gpurun: Gpurun, job: Any) -> None:
    done = gpurun("submit", str(job(TRAIN)), "--host", "local")
    assert done.stdout == "" and "\x1b" not in done.stderr and "launch: ok" in done.stderr
    gpurun("logs", "-f")
    for words in (["status"], ["list"], ["fetch"], ["hosts"]):
        shown = gpurun(*words)
        assert shown.stdout and "\x1b" not in shown.stdout + shown.stderr


def test_a_failed_run_exits_with_ten_and_quotes_the_line_that_shows_why(gpurun: Gpurun, job: Any) -> None:
    gpurun.submit(job("raise SystemExit('the data is not there')"))
    failed = gpurun("logs", "-f", check=10)
    assert "the data is not there" in failed.stdout
    assert gpurun.json("status")["status"]["exit"]["number"] == 1


def test_a_command_of_several_lines_is_a_script_that_ends_at_its_first_line_that_fails(
    gpurun: Gpurun, job: Any
) -> None:
    script = """\
export WHO="$GPURUN_RUN_ID"
mkdir -p sub && cd sub
printf '%s\\n' one two | sort -r > ../models/list.txt
python ../main.py {processes}
cat no-such-file
echo never
"""
    run_id = gpurun.submit(job("import os, sys; print(os.environ['WHO'], sys.argv[1])", command=script))
    failed = gpurun("logs", "-f", check=10)
    assert failed.stdout.startswith(f"{run_id} 1\n") and "never" not in failed.stdout
    gpurun("fetch")
    assert (Path(gpurun.json("status")["fetched_into"]) / "models/list.txt").read_text() == "two\none\n"


def test_an_unchanged_folder_is_not_sent_again(gpurun: Gpurun, job: Any) -> None:
    file = job(TRAIN)
    gpurun.submit(file)
    again = gpurun("submit", str(file), "--host", "local")
    assert "unchanged" in again.stderr
    gpurun("logs", "-f")
    assert "done" in gpurun("logs").stdout


def test_data_is_shared_and_appears_where_it_was(gpurun: Gpurun, job: Any) -> None:
    file = job(
        "print(open('data/texts/a.txt').read(), open('data/one.csv').read())",
        data=["data/texts", "data/one.csv"],
        outputs=[],
    )
    (file.parent / "data/texts").mkdir(parents=True)
    (file.parent / "data/texts/a.txt").write_text("first text")
    (file.parent / "data/one.csv").write_text("x,y")
    gpurun.submit(file)
    assert gpurun("logs", "-f").stdout == "first text x,y\n"
    assert len([entry for entry in (gpurun.box_root / "data").iterdir() if entry.is_dir()]) == 2


def test_stop_ends_everything_and_says_so(gpurun: Gpurun, job: Any) -> None:
    run_id = gpurun.submit(job("import signal\nsignal.signal(15, signal.SIG_IGN)\n" + WAIT))
    await_line(gpurun, run_id, "waiting")
    stopped = gpurun("stop", "--grace", "1")
    assert "no process of it is left" in stopped.stdout
    assert gpurun.json("status")["status"]["outcome"] == "cancelled"
    assert gpurun("logs", "-f", check=11).stdout.startswith("waiting")


def test_resume_goes_on_with_the_old_outputs(gpurun: Gpurun, job: Any) -> None:
    program = """
import os, pathlib
kept = pathlib.Path("models/step.txt")
step = int(kept.read_text()) if kept.exists() else 0
print("from step", step, os.environ.get("GPURUN_RESUME"))
kept.write_text(str(step + 5))
"""
    first = gpurun.submit(job(program))
    assert gpurun("logs", "-f").stdout == "from step 0 None\n"
    second = gpurun.json("resume")
    assert second["parent"] == first
    assert gpurun("logs", "-f").stdout == "from step 5 auto\n"
    assert "GPURUN_RESUME" not in gpurun("resume").stderr
    gpurun("logs", "-f")
    gpurun("fetch")
    assert (Path(gpurun.json("status")["fetched_into"]) / "models/step.txt").read_text() == "15"


def test_resume_warns_of_a_program_that_cannot_know_that_it_is_resumed(gpurun: Gpurun, job: Any) -> None:
    run_id = gpurun.submit(job("print('from the start')"))
    gpurun("logs", run_id, "-f")
    assert "no file of the code names GPURUN_RESUME" in gpurun("resume", run_id).stderr


def test_check_and_dry_run_send_nothing_and_start_nothing(gpurun: Gpurun, job: Any) -> None:
    file = job(TRAIN)
    checked = gpurun.json("check", str(file), "--host", "local")
    assert checked["ready"] and checked["would_send"]["code"]["count"] >= 1
    gpurun("submit", str(file), "--host", "local", "--dry-run")
    assert not (gpurun.box_root / "runs").exists() or not list((gpurun.box_root / "runs").iterdir())
    assert gpurun.json("list")["runs"] == []
    impossible = gpurun.json("check", str(file), "--host", "local", "--set", "resources.gpus=8", check=3)
    assert not impossible["ready"]


def test_submitting_with_the_same_run_attaches(gpurun: Gpurun, job: Any) -> None:
    file = job(WAIT)
    run_id = gpurun.submit(file)
    again = gpurun("submit", str(file), "--host", "local", "--run", run_id)
    assert "attached" in again.stderr
    assert len(list((gpurun.box_root / "runs").iterdir())) == 1
    gpurun("stop", "--grace", "1")


def test_ctrl_c_leaves_the_run_as_it_is_and_says_so(gpurun: Gpurun, job: Any) -> None:
    run_id = gpurun.submit(job(WAIT))
    following = gpurun.start("logs", "-f")
    assert following.stdout is not None and following.stdout.readline() == "waiting\n"
    following.send_signal(signal.SIGINT)
    _, said = following.communicate(timeout=30)
    assert following.returncode == 130 and "goes on as it is" in said
    assert gpurun.json("status")["status"]["phase"] == "running"
    (gpurun.box_run(run_id) / "code" / "go").touch()
    gpurun("logs", "-f")


def test_hosts_are_listed_and_forgotten(gpurun: Gpurun, job: Any) -> None:
    gpurun.submit(job("print(1)"))
    assert gpurun.json("hosts")["hosts"][0]["fingerprints"][0].startswith("ssh-ed25519 SHA256:")
    gpurun("hosts", "forget", "local")
    assert gpurun.json("hosts")["hosts"] == []
    gpurun("hosts", "forget", "nowhere", check=2)


def test_clean_shows_first_and_deletes_only_what_is_over(gpurun: Gpurun, job: Any) -> None:
    over = gpurun.submit(job(TRAIN))
    gpurun("logs", "-f")
    gpurun("fetch")
    gpurun("done")
    running = gpurun.submit(job(WAIT))
    gpurun("clean", "--host", "local", "--dry-run")
    assert gpurun.box_run(over).exists()
    gpurun("clean", "--host", "local", "--yes")
    assert not gpurun.box_run(over).exists() and gpurun.box_run(running).exists()
    gpurun("stop", running, "--grace", "1")


@pytest.mark.parametrize("words", [["logs"], ["status"], ["fetch"], ["stop"], ["resume"], ["done"], ["smoke-test"]])
def test_without_any_run_each_command_says_how_to_start_one(gpurun: Gpurun, words: list[str]) -> None:
    assert "gpurun submit" in gpurun(*words, check=2).stderr
    assert "gpurun submit" in json.loads(gpurun(*words, "--json", check=2).stdout)["error"]["hint"]


def test_an_unknown_run_and_an_unknown_command_are_named(gpurun: Gpurun) -> None:
    assert "knows no run" in gpurun("logs", "nope-20260101-000000-abcd", check=2).stderr
    assert "Did you mean 'submit'" in gpurun("sumbit", check=2).stderr


def test_fetch_before_anything_is_complete_says_so(gpurun: Gpurun, job: Any) -> None:
    run_id = gpurun.submit(job(WAIT))
    assert "nothing complete to fetch yet" in gpurun("fetch", check=6).stderr
    (gpurun.box_run(run_id) / "code" / "go").touch()
    gpurun("logs", "-f")


def test_an_unreachable_host_ends_within_fifteen_seconds_with_what_was_tried(gpurun: Gpurun, job: Any) -> None:
    failed = gpurun("submit", str(job(TRAIN)), "--host", "root@127.0.0.1:1", check=3)
    assert "127.0.0.1:1" in failed.stderr and "refused" in failed.stderr


def test_two_processes_under_torchrun(gpurun: Gpurun) -> None:
    gpurun.submit("jobs/torchrun.yaml")
    assert "ranks 2" in gpurun("logs", "-f").stdout
    gpurun("fetch")
    into = Path(gpurun.json("status")["fetched_into"])
    assert os.path.getsize(into / "models/linear.pt") > 0


def test_a_plain_script_with_requirements_of_its_own(gpurun: Gpurun) -> None:
    gpurun.submit("jobs/plain.yaml")
    assert "wrote models/trigrams.json" in gpurun("logs", "-f").stdout
    second = gpurun("submit", "jobs/plain.yaml", "--host", "local")
    assert "environment" not in second.stderr or "reused" in second.stderr
    gpurun("logs", "-f")
    gpurun("fetch")


def test_follow_with_json_is_one_document_with_everything_in_it(gpurun: Gpurun, job: Any) -> None:
    document = gpurun.json("submit", str(job(TRAIN)), "--host", "local", "--follow")
    (run,) = document["runs"]
    assert run["status"]["outcome"] == "succeeded" and run["fetched"]["complete"]
    failed = gpurun.json("submit", str(job("raise SystemExit(3)", name="bad")), "--host", "local", "--follow", check=10)
    assert failed["runs"][0]["error"]["kind"] == "RunFailed"


def test_init_writes_a_job_that_validates_and_runs(gpurun: Gpurun, tmp_path: Path) -> None:
    project = tmp_path / "my project"
    project.mkdir()
    (project / "train.py").write_text("print('trained')")
    gpurun("init", "mine", cwd=project)
    assert gpurun("validate", "mine.yaml", cwd=project).stdout.startswith("ok  mine.yaml")
    gpurun("init", "mine", cwd=project, check=2)  # never overwritten
    gpurun("submit", "mine.yaml", "--host", "local", "--set", "resources.gpus=0", cwd=project)
    assert gpurun("logs", "-f").stdout == "trained\n"


def test_a_wrong_job_file_is_refused_with_its_place_and_nothing_is_contacted(gpurun: Gpurun, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("name: x\nrecipe: clasify\n")
    for words in (["validate", str(file)], ["submit", str(file), "--host", "root@192.0.2.1"]):
        refused = gpurun(*words, check=2)
        assert f"{file}:2:9: " in refused.stdout + refused.stderr and "classify" in refused.stdout + refused.stderr
    assert not (gpurun.home / "runs").exists()
