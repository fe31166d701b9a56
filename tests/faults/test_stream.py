"""A log arrives byte for byte, whatever happens to the link, to the laptop or to the log."""

import hashlib
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import wait_until
from tests.support.box import Box, small_disk
from tests.support.cli import Gpurun
from tests.support.figures import Record
from tests.support.proxy import Proxy

# Numbered lines of 1,000 bytes, so many a second, so many seconds long; then their digest where only the test looks.
WRITE = """
import hashlib, os, sys, time
a_second, seconds = int(sys.argv[1]), float(sys.argv[2])
digest, begun, number = hashlib.sha256(), time.monotonic(), 0
while time.monotonic() - begun < seconds:
    while number < (time.monotonic() - begun) * a_second:
        line = b"%08d " % number + os.urandom(495).hex().encode() + b"\\n"
        os.write(1, line)
        digest.update(line)
        number += 1
    time.sleep(0.01)
open(os.path.expanduser("~/digest"), "w").write(digest.hexdigest())
"""


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def local_log(gpurun: Gpurun) -> Path:
    (run,) = (gpurun.home / "runs").iterdir()
    return run / "log"


def collected(process: subprocess.Popen[str], into: Path, stream: str = "stdout") -> threading.Thread:
    """Writes what the process prints to a file, from a thread."""
    pipe = getattr(process, stream).buffer

    def copy() -> None:
        with open(into, "wb") as target:
            while data := pipe.read1(1 << 16):
                target.write(data)

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    return thread


def follow_while_cut(gpurun: Gpurun, box: Box, job: Any, tmp_path: Path, cuts: int, a_second: int) -> None:
    with Proxy(box.port) as link:
        command = ["python3", "main.py", str(a_second), str(cuts + 3)]
        gpurun("submit", str(job(WRITE, command=command)), "--host", box.address(link.port))
        following = gpurun.start("logs", "-f", "--raw")
        shown = collected(following, tmp_path / "shown")
        collected(following, tmp_path / "said", "stderr")
        for number in range(cuts):
            time.sleep(1)
            link.cut("reset" if number % 2 else "close")
        assert following.wait(300) == 0, (tmp_path / "said").read_text()[-3000:]
        shown.join()
    expected = (box.home / "digest").read_text()
    assert digest(local_log(gpurun).read_bytes()) == expected
    assert digest((tmp_path / "shown").read_bytes()) == expected  # nothing was printed twice either


def test_41_a_log_over_a_connection_that_is_cut_every_second_is_equal(
    gpurun: Gpurun, box: Box, job: Any, tmp_path: Path
) -> None:
    follow_while_cut(gpurun, box, job, tmp_path, cuts=5, a_second=1000)


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_41_a_log_over_100_cuts_under_a_megabyte_a_second_is_equal(
    gpurun: Gpurun, box: Box, job: Any, tmp_path: Path, figure: Record
) -> None:
    follow_while_cut(gpurun, box, job, tmp_path, cuts=100, a_second=1000)
    figure("log equal over 100 cuts", 100, 100, "%", at_least=True)


@pytest.mark.slow
def test_41_a_laptop_that_slept_reattaches_by_itself(gpurun: Gpurun, box: Box, job: Any, tmp_path: Path) -> None:
    with Proxy(box.port) as link:
        command = ["python3", "main.py", "1000", "60"]
        gpurun("submit", str(job(WRITE, command=command)), "--host", box.address(link.port))
        following = gpurun.start("logs", "-f", "--raw")
        shown = collected(following, tmp_path / "shown")
        wait_until(lambda: (tmp_path / "shown").exists() and (tmp_path / "shown").stat().st_size > 1 << 20)
        following.send_signal(signal.SIGSTOP)
        time.sleep(40)  # longer than either side waits for a sign of the other
        link.cut()  # what a router forgot meanwhile
        following.send_signal(signal.SIGCONT)
        assert following.wait(120) == 0, following.stderr and following.stderr.read()
        shown.join()
    expected = (box.home / "digest").read_text()
    assert digest((tmp_path / "shown").read_bytes()) == digest(local_log(gpurun).read_bytes()) == expected


@pytest.mark.slow
def test_41_a_link_that_falls_silent_is_noticed_and_replaced(
    gpurun: Gpurun, box: Box, job: Any, tmp_path: Path, figure: Record
) -> None:
    with Proxy(box.port) as link:
        command = ["python3", "main.py", "1000", "45"]
        gpurun("submit", str(job(WRITE, command=command)), "--host", box.address(link.port))
        following = gpurun.start("logs", "-f", "--raw")
        shown = collected(following, tmp_path / "shown")
        assert following.stderr is not None
        wait_until(lambda: (tmp_path / "shown").exists() and (tmp_path / "shown").stat().st_size > 1 << 20)
        link.freeze()
        frozen = time.monotonic()
        while "nothing was heard" not in following.stderr.readline():
            assert time.monotonic() - frozen < 60
        figure("dead-peer detection", time.monotonic() - frozen, 60, "s")
        link.cut()
        link.thaw()
        assert following.wait(120) == 0
        shown.join()
    assert digest((tmp_path / "shown").read_bytes()) == (box.home / "digest").read_text()


def peak_memory(pid: int) -> int:
    """The most memory the process had so far, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_42_a_gigabyte_without_a_newline_costs_little_memory_on_either_side(
    gpurun: Gpurun, box: Box, job: Any, figure: Record
) -> None:
    flood = "import os\nblock = b'x' * (1 << 20)\nfor _ in range(1000):\n    os.write(1, block)\n"
    gpurun("submit", str(job(flood)), "--host", box.address())
    following = subprocess.Popen(
        gpurun.argv("logs", "-f"),
        env=gpurun.environment(),
        cwd=Path.cwd(),
        stdout=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )
    peaks = {"client": 0, "agent": 0}
    while following.poll() is None:
        for process in box.sessions():
            command = Path(f"/proc/{process.pid}/cmdline")
            try:
                if b"python" in command.read_bytes():
                    peaks["agent"] = max(peaks["agent"], peak_memory(process.pid))
                peaks["client"] = max(peaks["client"], peak_memory(following.pid))
            except OSError:
                continue
        time.sleep(0.05)
    assert following.returncode == 0
    assert local_log(gpurun).stat().st_size == 1000 << 20
    assert peaks["client"] and peaks["agent"]
    figure("memory under a 1 GB flood, client", peaks["client"] / 2**20, 200, "MiB")
    figure("memory under a 1 GB flood, agent", peaks["agent"] / 2**20, 100, "MiB")


def in_pieces(pieces: list[bytes]) -> str:
    """A program that writes each piece by itself, with a pause that lets a follower send it by itself."""
    return f"import os, time\nfor piece in {pieces!r}:\n    os.write(1, piece)\n    time.sleep(0.05)\n"


def test_43_escapes_split_over_reads_never_reach_the_terminal(gpurun: Gpurun, job: Any) -> None:
    sequences = [
        b"\x1b]52;c;aGFja2Vk\x07",
        b"\x1bP+q544e\x1b\\",
        b"\x9b31;5n",
        b"\xc2\x9d0;title\xc2\x9c",
        b"\x1b]0;t\x1b\\",
        b"\x1b[2J",
    ]
    pieces = [b"good "]
    for sequence in sequences:
        pieces += [sequence[at : at + 1] for at in range(len(sequence))]
    pieces += [b"\x1b[", b"32mgreen\x1b[0", b"m end\n"]
    gpurun.submit(job(in_pieces(pieces)))
    shown = gpurun("logs", "-f").stdout
    assert shown.replace("\ufffd31;5n", "") == "good \x1b[32mgreen\x1b[0m end\n"
    assert local_log(gpurun).read_bytes() == b"".join(pieces)  # the file has every byte
    raw = subprocess.run(gpurun.argv("logs", "--raw"), env=gpurun.environment(), capture_output=True, timeout=60)
    assert raw.stdout == b"".join(pieces)


@pytest.mark.slow
def test_44_characters_split_over_reads_are_intact(gpurun: Gpurun, job: Any) -> None:
    text = "ünïcødé 日本語 🦙 ✓\n" * 3
    data = text.encode()
    gpurun.submit(job(in_pieces([data[at : at + 1] for at in range(len(data))])))
    assert gpurun("logs", "-f").stdout == text
    assert gpurun("logs").stdout == text


def test_45_a_log_that_was_replaced_is_said(gpurun: Gpurun, box: Box, job: Any) -> None:
    program = """
import os, time
print("first", flush=True)
while not os.path.exists(os.path.expanduser("~/go")):
    time.sleep(0.02)
"""
    run_id = gpurun.submit(job(program))
    log = gpurun.box_run(run_id) / "log"
    wait_until(lambda: log.read_text() == "first\n")
    assert gpurun("logs").stdout == "first\n"
    following = gpurun.start("logs", "-f")
    assert following.stdout is not None and following.stdout.readline() == "first\n"
    other = log.with_name("other")
    other.write_text("another file\n")
    other.rename(log)
    said = following.stdout.readline() + following.stdout.readline() + following.stdout.readline()
    assert "the log on the box was replaced" in said and said.endswith("another file\n")
    (box.home / "go").touch()
    following.communicate(timeout=60)
    assert local_log(gpurun).read_text() == "another file\n"


@pytest.mark.slow
def test_two_clients_follow_one_run_and_both_show_all_of_it(gpurun: Gpurun, box: Box, job: Any, tmp_path: Path) -> None:
    gpurun.submit(job(WRITE, command=["python3", "main.py", "2000", "5"]))
    following = [gpurun.start("logs", "-f", "--raw") for _ in range(2)]
    threads = [collected(each, tmp_path / str(number)) for number, each in enumerate(following)]
    assert [each.wait(120) for each in following] == [0, 0]
    for thread in threads:
        thread.join()
    expected = (box.home / "digest").read_text()
    assert {digest((tmp_path / name).read_bytes()) for name in ("0", "1")} == {expected}
    assert digest(local_log(gpurun).read_bytes()) == expected


@pytest.mark.slow
def test_a_log_larger_than_the_disk_keeps_its_newest_part_and_does_not_end_the_run(
    gpurun: Gpurun, box: Box, job: Any, tmp_path: Path
) -> None:
    command = ["python3", "main.py", "40000", "12"]  # 480 MB, on a disk of 300
    with small_disk(tmp_path / "volume", "size=300m") as volume:
        gpurun("submit", str(job(WRITE, command=command, outputs=[])), "--host", box.address(), "--volume", str(volume))
        following = subprocess.run(
            gpurun.argv("logs", "-f", "--raw"), env=gpurun.environment(), capture_output=True, timeout=120
        )
        assert following.returncode == 0, following.stderr
        tail = gpurun("logs", "--raw", "--tail", "1000").stdout.splitlines()
        status = gpurun.json("status")["status"]
    numbers = [int(line.split()[0]) for line in tail]
    assert numbers == list(range(numbers[0], numbers[0] + 1000))
    assert status["log_size"] == local_log(gpurun).stat().st_size == (numbers[-1] + 1) * 1000
