"""runner/files.py: a file is the old one or the new one, whoever writes it at the same time."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runner import files
from runner.workflow.fetching.staging import Staging


def test_two_threads_that_replace_one_file_leave_one_of_their_texts_and_nothing_else(tmp_path: Path) -> None:
    file, failed = tmp_path / "ssh.config", []

    def write(text: str) -> None:
        try:
            for _ in range(50):
                files.write_text(file, text)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(letter * 9999,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert set(file.read_text()) in ({"a"}, {"b"}) and [entry.name for entry in tmp_path.iterdir()] == ["ssh.config"]


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    files.write_json(file, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(file, {"a": object()})
    assert files.read_json(file) == {"a": 1} and [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


KILLED = """
import os, signal, sys
from pathlib import Path
from runner.domain.answers.manifest import Artifact
from runner.workflow.fetching.receipt import Receipt
os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
receipt = Receipt(Path(sys.argv[1]))
receipt.note(Artifact("model.bin", 1, "0" * 64))
receipt.save()
"""


def test_a_fetch_that_is_killed_leaves_unfinished_files_among_the_staged_ones_only(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)])
    assert killed.returncode == -signal.SIGKILL
    assert [entry.name for entry in tmp_path.iterdir()] == [".gpurun-staging"]
    assert len(list((tmp_path / ".gpurun-staging").iterdir())) == 1
    Staging(tmp_path).remove()
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_file_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with files.file_lock(tmp_path / "fetch"), files.file_lock_if_free(tmp_path / "fetch") as alone:
        assert not alone
    with files.file_lock_if_free(tmp_path / "fetch") as alone:
        assert alone


HOLDER = """
import sys, time
from pathlib import Path
from runner import files
file = Path(sys.argv[1])
def work():
    value = files.read_json(file)
    if not value.get("other"):
        print("holds", flush=True)
        time.sleep(float(sys.argv[2]))
    files.write_json(file, {**value, "mine": 1})
files.change(file, work)
"""


def hold(file: Path, seconds: float) -> "subprocess.Popen[str]":
    """A process that holds the file's lock for so long, and then adds ``mine`` to what it read before."""
    command = [sys.executable, "-c", HOLDER, str(file), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "holds\n"
    return process


def test_nobody_waits_for_ever_for_a_gpurun_that_was_stopped_and_no_change_is_lost(tmp_path: Path) -> None:
    """Ctrl-Z in the moment in which a record is written: the next command on that run waited without an end or a word."""
    file = tmp_path / "run.json"
    stopped = hold(file, 0.2)
    stopped.send_signal(signal.SIGSTOP)
    with files.file_lock(file, patience=0.5):
        files.write_json(file, {**files.read_json(file), "other": 1})
    stopped.send_signal(signal.SIGCONT)
    assert stopped.wait(30) == 0 and files.read_json(file) == {"other": 1, "mine": 1}


def test_a_lock_that_is_given_back_in_time_is_not_taken_over(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    holder = hold(file, 0.5)
    with files.file_lock(file):
        assert files.read_json(file) == {"mine": 1}
    assert holder.wait(30) == 0


def test_twenty_processes_change_a_file_one_after_the_other(tmp_path: Path) -> None:
    """Though each is impatient, and takes over a lock that is held for longer than a tenth of a second."""
    program = (
        "import sys, random, time; from pathlib import Path; from runner import files\n"
        "file = Path(sys.argv[1])\n"
        "def work():\n"
        "    value = files.read_json(file); time.sleep(random.choice([0, 0, 0.05, 0.15]))\n"
        "    files.write_json(file, {**value, sys.argv[2]: 1})\n"
        "while True:\n"
        "    try:\n"
        "        with files.file_lock(file, patience=0.1): work()\n"
        "        break\n"
        "    except files.LockLost: pass\n"
    )
    file = tmp_path / "run.json"
    processes = [subprocess.Popen([sys.executable, "-c", program, str(file), str(number)]) for number in range(20)]
    assert [process.wait(60) for process in processes] == [0] * 20
    assert set(files.read_json(file)) == set(map(str, range(20)))
