"""What is sent arrives whole or not at all, whatever the link, the disk or the folder is like, and secrets stay here."""

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from remote_payload.agent.box import processes
from tests.support.agent import wait_until
from tests.support.box import Box, small_disk
from tests.support.cli import Gpurun
from tests.support.figures import Record
from tests.support.hostile_names import HOSTILE_NAMES
from tests.support.proxy import Proxy

# Says of every file below data/ its name and digest.
DIGESTS = """
import hashlib, json, os
found = {}
for folder, _, names in os.walk("data", followlinks=True):
    for name in names:
        path = os.path.join(folder, name)
        found[os.path.relpath(path, "data")] = hashlib.sha256(open(path, "rb").read()).hexdigest()
print(json.dumps(found))
"""
MB = 1 << 20


def with_data(job: Any, sizes: dict[str, int], program: str = DIGESTS, **fields: Any) -> tuple[Path, dict[str, str]]:
    """A job with random data files of these sizes; the digest of each."""
    file = job(program, data=["data"], outputs=[], **fields)
    (file.parent / "data").mkdir()
    digests = {}
    for name, size in sizes.items():
        content = os.urandom(size)
        (file.parent / "data" / name).write_bytes(content)
        digests[name] = hashlib.sha256(content).hexdigest()
    return file, digests


def arrived(gpurun: Gpurun) -> dict[str, str]:
    found: dict[str, str] = json.loads(gpurun("logs", "-f").stdout)
    return found


def pushing(box: Box, at_least: int = 1) -> bool:
    """Whether so many bytes of a push are on the box."""
    found = [path for path in (box.root / "incoming").glob("data-*/**/*") if path.is_file()]
    return sum(path.stat().st_size for path in found) >= at_least


def nothing_final(root: Path) -> bool:
    """No data, code or run under a name that anybody would use."""
    data = [each for each in root.glob("data/*") if each.is_dir()]
    return not data and not list(root.glob("runs/*"))


@contextmanager
def lossy(link: Proxy) -> Iterator[None]:
    """Stalls as TCP shows them when packets are lost: nothing for a while, then all of it."""
    over = threading.Event()

    def stall() -> None:
        while not over.wait(0.3):
            link.freeze()
            over.wait(0.4)
            link.thaw()

    thread = threading.Thread(target=stall)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.mark.slow
def test_17_a_slow_and_lossy_link_delivers(gpurun: Gpurun, box: Box, job: Any) -> None:
    file, digests = with_data(job, {"a": 3 * MB, "b": MB, "c": 100})
    with Proxy(box.port, delay=0.05, rate=2e6) as link, lossy(link):
        gpurun("submit", str(file), "--host", box.address(link.port))
        assert arrived(gpurun) == digests


@pytest.mark.slow
def test_18_a_dead_link_is_noticed_within_60_seconds_and_gone_on_from(
    gpurun: Gpurun, box: Box, job: Any, figure: Record
) -> None:
    file, digests = with_data(job, {f"part-{number}": 4 * MB for number in range(6)})
    with Proxy(box.port, rate=4e6) as link:
        submitting = gpurun.start("submit", str(file), "--host", box.address(link.port))
        wait_until(lambda: pushing(box, 9 * MB))
        link.freeze()
        frozen = time.monotonic()
        _, said = submitting.communicate(timeout=120)
        figure("dead-peer detection", time.monotonic() - frozen, 60, "s")
        assert submitting.returncode in (3, 4) and "Repeat the command" in said, said
        assert nothing_final(box.root)
        link.cut()
        link.thaw()
        wait_until(lambda: not [each for each in box.sessions() if each.name == "rsync"])
        link.set(rate=1e9)
        link.count_anew()
        run_id = gpurun.json("list")["runs"][0]["run_id"]
        gpurun("submit", str(file), "--host", box.address(link.port), "--run", run_id)
        again = link.trace.bytes("to server") - 24 * MB + 9 * MB
        assert arrived(gpurun) == digests
    figure("bytes sent again after an interruption", max(0, again), 4 * MB, "bytes")


def rsyncs(client: subprocess.Popen[str]) -> list[processes.Process]:
    everything = processes.scan()
    below = processes.descendants(everything, client.pid)
    return [everything[pid] for pid in below if everything[pid].name == "rsync"]


@pytest.mark.parametrize("times", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_19_a_killed_rsync_is_repeated_and_the_next_push_converges(
    gpurun: Gpurun, box: Box, job: Any, times: int
) -> None:
    file, digests = with_data(job, {"a": 6 * MB, "b": MB})
    with Proxy(box.port, rate=3e6) as link:
        submitting = gpurun.start("submit", str(file), "--host", box.address(link.port))
        killed: set[int] = set()
        for _ in range(times):
            wait_until(lambda: pushing(box) and [each for each in rsyncs(submitting) if each.pid not in killed])
            for each in rsyncs(submitting):
                killed.add(each.pid)
                processes.send(each, signal.SIGKILL)
        _, said = submitting.communicate(timeout=120)
        if times == 3:
            assert submitting.returncode == 4 and "Repeat the command" in said, said
            assert nothing_final(box.root)
            gpurun("submit", str(file), "--host", box.address(link.port))
        else:
            assert submitting.returncode == 0 and "going on from there" in said, said
        assert arrived(gpurun) == digests


@pytest.mark.slow
def test_20_a_disk_that_fills_during_the_push_is_named_and_nothing_is_left_under_a_final_name(
    gpurun: Gpurun, box: Box, job: Any, tmp_path: Path
) -> None:
    file, digests = with_data(job, {"a": 30 * MB, "b": 30 * MB})
    with small_disk(tmp_path / "volume", "size=330m") as volume, Proxy(box.port, rate=15e6) as link:
        words = ["submit", str(file), "--host", box.address(link.port), "--volume", str(volume)]
        submitting = gpurun.start(*words)
        wait_until(lambda: list(volume.glob(".gpurun-box/incoming/data-*/**/*")))
        with open(volume / "filler", "wb") as filler:
            try:
                while True:
                    filler.write(b"x" * MB)
                    filler.flush()
            except OSError:
                pass
        _, said = submitting.communicate(timeout=120)
        assert submitting.returncode == 4 and "disk is full" in said, said
        assert nothing_final(volume / ".gpurun-box")
        (volume / "filler").unlink()
        gpurun(*words)
        assert arrived(gpurun) == digests


def test_21_a_file_that_changes_while_it_is_pushed_is_sent_again(gpurun: Gpurun, box: Box, job: Any) -> None:
    file, digests = with_data(job, {"a": 6 * MB, "b": MB})
    with Proxy(box.port, rate=3e6) as link:
        submitting = gpurun.start("submit", str(file), "--host", box.address(link.port))
        wait_until(lambda: pushing(box))
        (file.parent / "data" / "a").write_bytes(b"another content")
        _, said = submitting.communicate(timeout=120)
        assert submitting.returncode == 0 and "data: 1 file (a) changed during the push, sending again" in said, said
        assert arrived(gpurun) == {**digests, "a": hashlib.sha256(b"another content").hexdigest()}


def test_21_a_file_that_never_rests_is_named_with_the_line_that_leaves_it_out(
    gpurun: Gpurun, box: Box, job: Any
) -> None:
    file = job("pass", outputs=[])
    program = "import sys, time\nwhile True: open(sys.argv[1], 'w').write(f'{time.time_ns()}\\n')"
    command = [sys.executable, "-c", program, str(file.parent / "loss curve.csv")]
    writers = [subprocess.Popen(command) for _ in range(2)]
    try:
        wait_until(lambda: (file.parent / "loss curve.csv").exists())
        with Proxy(
            box.port, delay=0.1
        ) as link:  # so that each push takes longer than a writer may have to wait for a processor
            submitting = gpurun.start("submit", str(file), "--host", box.address(link.port))
            _, said = submitting.communicate(timeout=200)
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    assert submitting.returncode == 4 and "1 file (loss curve.csv) changed during the push, 4 times" in said, said
    assert 'code: {exclude: ["/loss\\\\ curve.csv"]}' in said, said
    assert nothing_final(box.root)


def edit(file: Path, **fields: Any) -> None:
    """Other values in a job file."""
    text = yaml.safe_dump({**yaml.safe_load(file.read_text()), **fields})
    file.with_suffix(".new").write_text(text)
    file.with_suffix(".new").replace(file)


def test_a_file_that_is_excluded_while_the_rest_is_pushed_does_not_run(gpurun: Gpurun, box: Box, job: Any) -> None:
    file, _ = with_data(job, {"a": 4 * MB}, "import os\nprint(sorted(os.listdir('.')))")
    (file.parent / "private.txt").write_text("nobody else reads this")
    with Proxy(box.port, rate=3e6) as link:
        words = ["submit", str(file), "--host", box.address(link.port), "--set", "time_limit=2h"]
        submitting = gpurun.start(*words)
        wait_until(lambda: pushing(box))
        edit(file, code={"exclude": ["private.txt"]})
        _, said = submitting.communicate(timeout=120)
        assert submitting.returncode == 4 and "was changed after this command had read it: code" in said, said
        hint = next(line for line in said.splitlines() if "gpurun submit" in line)
        repeat = shlex.split(hint[hint.index("submit") :])
        assert repeat[:-2] == words and not list(box.root.glob("runs/*"))
        gpurun(*repeat)
        listed = gpurun("logs", "-f").stdout
    assert "main.py" in listed and "private.txt" not in listed


def test_a_job_file_that_is_edited_for_the_next_run_leaves_this_one_as_it_was(
    gpurun: Gpurun, box: Box, job: Any
) -> None:
    file, _ = with_data(job, {"a": 4 * MB}, "import os\nprint(os.environ.get('TRY'))", time_limit="1h")
    with Proxy(box.port, rate=3e6) as link:
        submitting = gpurun.start("submit", str(file), "--host", box.address(link.port))
        wait_until(lambda: pushing(box))
        edit(file, time_limit="2h")
        _, said = submitting.communicate(timeout=120)
        assert submitting.returncode == 0, said
        assert json.loads(next(box.root.glob("runs/*/job.json")).read_text())["time_limit"] == "3600.0s"


CANARY = "canary-9f31c6"
SECRETS = {
    ".env": f"TOKEN={CANARY}",
    ".env.production": f"TOKEN={CANARY}",
    "deep/er/.env": f"TOKEN={CANARY}",
    "id_ed25519": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{CANARY}\n-----END OPENSSH PRIVATE KEY-----\n",
    "server.pem": f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n",
    ".netrc": f"machine a login b password {CANARY}",
    ".aws/credentials": f"[default]\naws_secret_access_key = {CANARY}",
    ".ssh/config": f"# {CANARY}",
    "notes.txt": f"my token is hf_{'a1B2' * 9} {CANARY}",
}


@pytest.mark.parametrize("tracked", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["tracked", "ignored"])
def test_22_planted_secrets_are_not_sent(gpurun: Gpurun, box: Box, job: Any, figure: Record, tracked: bool) -> None:
    file = job("import os\nprint(sorted(os.listdir('.')))")
    for name, content in SECRETS.items():
        (file.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (file.parent / name).write_text(content)
    git = ["git", "-C", str(file.parent), "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([*git, "init", "-q"], check=True)
    if tracked:
        subprocess.run([*git, "add", "-f", "-A"], check=True)
        subprocess.run([*git, "commit", "-qm", "all of it"], check=True)
    else:
        (file.parent / ".gitignore").write_text("\n".join(SECRETS))
    gpurun("submit", str(file), "--host", box.address())
    assert "main.py" in gpurun("logs", "-f").stdout
    found = subprocess.run(["grep", "-rlF", CANARY, str(box.home)], capture_output=True, text=True).stdout.split()
    assert found == []
    figure("canary leaks", len(found), 0)


def test_23_hostile_names_arrive_as_they_are_and_do_nothing(gpurun: Gpurun, box: Box, job: Any) -> None:
    file = job("import json, os\nprint(json.dumps(sorted(os.fsencode(n).hex() for n in os.listdir('names'))))")
    (file.parent / "names").mkdir()
    for name in HOSTILE_NAMES:
        (file.parent / "names" / os.fsdecode(name)).write_text("x")
    submitted = gpurun("submit", str(file), "--host", box.address())
    checked = gpurun("check", str(file), "--host", box.address())
    assert json.loads(gpurun("logs", "-f").stdout) == sorted(os.fsencode(name).hex() for name in HOSTILE_NAMES)
    assert not set(submitted.stderr + checked.stdout + checked.stderr) & set("\x1b\x07")


@pytest.mark.slow
def test_24_a_link_to_the_home_folder_is_not_followed(gpurun: Gpurun, box: Box, job: Any, tmp_path: Path) -> None:
    home = tmp_path / "my-home"
    home.mkdir()
    (home / "diary.txt").write_text(CANARY)
    file = job("import os\nprint(os.path.exists('link/diary.txt'), os.path.exists('deep/link'))")
    (file.parent / "link").symlink_to(home)
    (file.parent / "deep").mkdir()
    (file.parent / "deep" / "link").symlink_to(home / "diary.txt")
    gpurun("submit", str(file), "--host", box.address(), check=None)
    found = subprocess.run(["grep", "-rlF", CANARY, str(box.home)], capture_output=True, text=True).stdout.split()
    assert found == []
