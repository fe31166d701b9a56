"""The second submission of a project that was changed: what arrives, and how little is sent for it."""

import os
import time
from typing import Any

from tests.support.cli import Gpurun

PROGRAM = "print(open('words.txt').read())\n"


def arrived(gpurun: Gpurun, run_id: str) -> str:
    return (gpurun.box_run(run_id) / "code" / "words.txt").read_text()


def test_a_changed_file_goes_along_with_a_request(gpurun: Gpurun, job: Any) -> None:
    file = job(PROGRAM)
    words = file.parent / "words.txt"
    words.write_text("first\n")
    first = gpurun.submit(file)
    words.write_text("second\n")
    told = gpurun("submit", str(file), "--host", "local").stderr
    (second,) = {run["run_id"] for run in gpurun.json("list")["runs"]} - {first}
    assert "push code (1 of 3 files)" in told
    assert (arrived(gpurun, first), arrived(gpurun, second)) == ("first\n", "second\n")
    linked = gpurun.box_run(second) / "code" / "main.py"
    assert os.path.samefile(linked, gpurun.box_run(first) / "code" / "main.py")
    assert not (gpurun.box_root / "incoming" / second).exists(), "nothing is left behind"


def test_a_second_edit_within_one_second_is_no_less_of_one(gpurun: Gpurun, job: Any) -> None:
    file = job(PROGRAM)
    for number in range(300):  # many: the first push is a tar stream
        (file.parent / f"module_{number}.py").write_text(f"number = {number}\n")
    words = file.parent / "words.txt"
    words.write_text("first\n")
    second = int(time.time()) + 60  # however slow this machine is just now: it counts as edited while it is pushed
    os.utime(words, ns=(0, second * 10**9 + 100_000_000))
    assert arrived(gpurun, gpurun.submit(file)) == "first\n"
    words.write_text("again\n")
    os.utime(words, ns=(0, second * 10**9 + 900_000_000))
    told = gpurun("submit", str(file), "--host", "local").stderr
    assert "push code (1 of 303 files)" in told, told
    assert any(arrived(gpurun, run["run_id"]) == "again\n" for run in gpurun.json("list")["runs"])


def test_checksum_sees_and_sends_an_edit_that_keeps_size_and_time(gpurun: Gpurun, job: Any) -> None:
    file = job(PROGRAM, data=["corpus"])
    words, corpus = file.parent / "words.txt", file.parent / "corpus" / "a.txt"
    corpus.parent.mkdir()
    words.write_text("first\n")
    corpus.write_text("first\n")
    gpurun.submit(file)
    for each in (words, corpus):
        about = each.stat()
        each.write_text("other\n")
        os.utime(each, ns=(about.st_atime_ns, about.st_mtime_ns))
    unseen = gpurun.submit(file)
    assert arrived(gpurun, unseen) == "first\n", "size and time are what decides otherwise"
    seen = gpurun.submit(file, "--checksum")
    assert arrived(gpurun, seen) == "other\n"
    assert (gpurun.box_run(seen) / "code" / "corpus" / "a.txt").read_text() == "other\n"
