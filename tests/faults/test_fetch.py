"""What a frozen, killed, swapped, growing or lying other end does to a fetch. All or nothing, for each file."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from remote_payload.agent.box import processes
from tests.support.agent import wait_until
from tests.support.box import Box, only_as_root
from tests.support.cli import Gpurun
from tests.support.figures import Record
from tests.support.proxy import Proxy

BIG = 8 << 20
TRAIN = f"""
import os, pathlib
pathlib.Path("models").mkdir(exist_ok=True)
pathlib.Path("models/large").write_bytes(os.urandom({BIG}))
pathlib.Path("models/small").write_text("small")
print("trained")
"""


@pytest.fixture
def trained(gpurun: Gpurun, box: Box, job: Any) -> str:
    run_id = gpurun.submit(job(TRAIN))
    gpurun("logs", "-f")
    wait_until((gpurun.box_run(run_id) / "manifest.json").exists)
    return run_id


@pytest.fixture
def link(box: Box) -> Iterator[Proxy]:
    with Proxy(box.port) as proxy:
        yield proxy


def trained_through(link: Proxy, gpurun: Gpurun, box: Box, file: Path) -> str:
    """A run that ended on a box that is reached through the proxy, which is narrow from now on."""
    run_id = gpurun.json("submit", str(file), "--host", box.address(link.port))["runs"][0]["run_id"]
    gpurun("logs", "-f")
    link.set(rate=2e6)
    return str(run_id)


def same(gpurun: Gpurun, run_id: str, into: Path) -> bool:
    there = gpurun.box_run(run_id) / "outputs" / "models"
    return all((into / "models" / name).read_bytes() == (there / name).read_bytes() for name in ("large", "small"))


def finals(into: Path) -> list[str]:
    """Everything under a final name."""
    found = (each for each in into.rglob("*") if each.is_file() or each.is_symlink())
    return sorted(
        str(each.relative_to(into)) for each in found if not each.relative_to(into).parts[0].startswith(".gpurun")
    )


@pytest.mark.slow
def test_46_a_frozen_peer_ends_the_copy_within_60_seconds_and_what_arrived_is_not_sent_again(
    gpurun: Gpurun, box: Box, link: Proxy, job: Any, figure: Record, tmp_path: Path
) -> None:
    into = tmp_path / "home"
    run_id = trained_through(link, gpurun, box, job(TRAIN))
    fetching = gpurun.start("fetch", "--into", str(into))
    wait_until(lambda: staged(into) > BIG // 2)
    link.freeze()
    frozen = time.monotonic()
    wait_until(lambda: not copying(fetching.pid), limit=90)
    figure("dead-peer detection of a fetch", time.monotonic() - frozen, 60, "s")
    assert finals(into) == []
    fetching.send_signal(signal.SIGINT)
    fetching.communicate(timeout=60)
    arrived = staged(into)
    link.thaw()
    link.set(rate=0)
    link.count_anew()
    gpurun("fetch", "--into", str(into))
    again = max(0, link.trace.bytes("to client") - (BIG - arrived)) / arrived
    assert same(gpurun, run_id, into)
    figure("bytes sent again after an interruption, of those that had arrived", again, 0.1)


@pytest.mark.slow
def test_47_a_killed_receiver_leaves_nothing_final_and_the_next_fetch_converges(
    gpurun: Gpurun, box: Box, link: Proxy, job: Any, tmp_path: Path
) -> None:
    into = tmp_path / "home"
    run_id = trained_through(link, gpurun, box, job(TRAIN))
    fetching = gpurun.start("fetch", "--into", str(into))
    wait_until(lambda: staged(into) > BIG // 4)
    for pid in {fetching.pid, *processes.descendants(processes.scan(), fetching.pid)}:
        os.kill(pid, signal.SIGKILL)
    fetching.communicate(timeout=30)
    assert finals(into) == []
    link.set(rate=0)
    gpurun("fetch", "--into", str(into))
    assert same(gpurun, run_id, into) and finals(into) == ["models/large", "models/small"]
    assert not (into / ".gpurun-staging").exists()


def staged(into: Path) -> int:
    """Bytes of the large file that have arrived."""
    try:
        return (into / ".gpurun-staging/outputs/models/large").stat().st_blocks * 512
    except OSError:
        return 0


def copying(pid: int) -> bool:
    """Whether gpurun has an rsync below it."""
    everything = processes.scan()
    return any(
        everything[each].name == "rsync" for each in processes.descendants(everything, pid) if each in everything
    )


def hostile(outputs: Path, secret: Path) -> None:
    """What may lie in a folder that somebody hostile wrote."""
    models = outputs / "models"
    (models / "link").symlink_to(secret)
    (models / "folder-link").symlink_to(secret.parent)
    (models / "loop").symlink_to("loop")
    os.mkfifo(models / "pipe")
    if os.getuid() == 0:
        os.mknod(models / "device", 0o600 | 0o020000, os.makedev(1, 3))
    (models / "setuid").write_text("#!/bin/sh\n")
    (models / "setuid").chmod(0o6777)
    for name in (
        "-rf",
        "new\nline",
        "esc\x1b]0;x\x07",
        "back\\slash",
        "Case",
        "case",
        "caf\u00e9",
        "cafe\u0301",
        ".git",
        ".ssh",
    ):
        (models / name).write_text(name)
    (models / os.fsdecode(b"\xff\xfe")).write_text("x")


def test_48_of_a_hostile_tree_only_plain_files_with_plain_names_come_and_the_rest_is_named(
    gpurun: Gpurun, box: Box, trained: str, figure: Record, tmp_path: Path
) -> None:
    into, secret = tmp_path / "home", tmp_path / "secret" / "id"
    secret.parent.mkdir()
    secret.write_text("secret")
    run = gpurun.box_run(trained)
    (run / "manifest.json").unlink(missing_ok=True)
    hostile(run / "outputs", secret)
    fetched = gpurun("fetch", "--into", str(into))
    assert "not fetched: models/link (a link)" in fetched.stderr and "\x1b" not in fetched.stderr
    names = finals(into)
    assert {"models/large", "models/small", "models/setuid"} <= set(names)
    outside = [each for each in into.rglob("*") if each.is_symlink() or not (each.is_file() or each.is_dir())]
    bad = [name for name in names if any(char in name for char in "\n\x1b\\") or name.endswith((".git", ".ssh"))]
    figure("escapes from staging", len(outside) + len(bad), 0)
    assert (into / "models/setuid").stat().st_mode & 0o6000 == 0
    assert secret.read_text() == "secret"


def test_a_box_is_not_safe_to_destroy_while_something_on_it_is_never_fetched(
    gpurun: Gpurun, box: Box, trained: str, tmp_path: Path
) -> None:
    run = gpurun.box_run(trained)
    (run / "manifest.json").unlink(missing_ok=True)
    (run / "outputs/models/latest").symlink_to("large")  # stands for what is fetched under its own name
    (run / "outputs/models/half.tmp").write_text("x")
    gpurun("fetch")
    safe = gpurun.json("done")
    assert safe["safe_to_destroy"] and {each["why"] for each in safe["left_out"]} == {"a link", "unfinished"}
    (run / "outputs/models/odd\nname").write_text("a result")
    (run / "manifest.json").unlink(missing_ok=True)
    unsafe = gpurun.json("done", check=6)
    assert not unsafe["safe_to_destroy"] and "never fetched" in unsafe["reasons"][0]
    assert gpurun.json("done", "--leave-behind")["safe_to_destroy"]


@pytest.mark.parametrize("swapped", ["models", ".gpurun-staging"])
def test_49_a_folder_here_that_was_swapped_for_a_link_is_not_written_through(
    gpurun: Gpurun, box: Box, trained: str, figure: Record, tmp_path: Path, swapped: str
) -> None:
    into, outside = tmp_path / "home", tmp_path / "outside"
    outside.mkdir()
    into.mkdir()
    (into / swapped).symlink_to(outside)
    refused = gpurun("fetch", "--into", str(into), check=6)
    assert "is a link" in refused.stderr
    figure("escapes from staging", len(list(outside.iterdir())), 0)


def test_49_a_folder_on_the_box_that_became_a_link_brings_no_link_and_nothing_that_was_not_listed(
    gpurun: Gpurun, box: Box, trained: str, figure: Record, tmp_path: Path
) -> None:
    models, elsewhere = gpurun.box_run(trained) / "outputs/models", tmp_path / "elsewhere"
    models.rename(elsewhere)
    (elsewhere / "large").write_bytes(b"another file of another folder")
    models.symlink_to(elsewhere)
    refused = gpurun("fetch", "--into", str(tmp_path / "home"), check=None)
    assert refused.returncode in (4, 6) and "models" in refused.stderr
    figure("escapes from staging", len(finals(tmp_path / "home")), 0)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    only_as_root()
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_51_a_full_disk_here_leaves_the_earlier_result_as_it_was(
    gpurun: Gpurun, box: Box, trained: str, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "24m") as disk:
        into = disk / "home"
        gpurun("fetch", "--into", str(into))
        before = (into / "models/large").read_bytes()
        run = gpurun.box_run(trained)
        (run / "manifest.json").unlink(missing_ok=True)
        (run / "outputs/models/large").write_bytes(os.urandom(BIG))
        (disk / "filler").write_bytes(b"\0" * (12 << 20))
        failed = gpurun("fetch", check=4)
        assert "free" in failed.stderr or "full" in failed.stderr
        assert (into / "models/large").read_bytes() == before
        (disk / "filler").unlink()
        gpurun("fetch")
        assert same(gpurun, trained, into)


def test_52_one_flipped_bit_is_named_and_the_earlier_result_stays(
    gpurun: Gpurun, box: Box, trained: str, tmp_path: Path
) -> None:
    into = tmp_path / "home"
    gpurun("fetch", "--into", str(into))
    before = (into / "models/large").read_bytes()
    large = gpurun.box_run(trained) / "outputs/models/large"
    damaged = bytearray(before)
    damaged[BIG // 2] ^= 1
    large.write_bytes(damaged)
    os.utime(into / "models/large", (1, 1))  # it is no longer the one that was verified: asked for again
    said = gpurun("fetch", check=6).stderr
    assert "models/large is not what the box's manifest says" in said
    assert (into / "models/large").read_bytes() == before


def test_a_checkpoint_that_is_being_written_is_not_fetched_until_it_is_whole(
    gpurun: Gpurun, box: Box, job: Any, tmp_path: Path
) -> None:
    program = """
import json, os, pathlib, time
best = pathlib.Path("models/checkpoint-1"); best.mkdir(parents=True)
(best / "weights").write_bytes(b"w" * 1000)
print("half", flush=True)
while not os.path.exists("go"): time.sleep(0.02)
(best / "more").write_bytes(b"m" * 1000)
listed = [{"path": name, "size": 1000, "sha256": "0" * 64} for name in ("weights", "more")]
(best / "manifest.json").write_text(json.dumps({"files": listed}))
print("whole", flush=True)
while not os.path.exists("end"): time.sleep(0.02)
"""
    run_id = gpurun.submit(job(program))
    box_run = gpurun.box_run(run_id)
    wait_until(lambda: "half" in (box_run / "log").read_text())
    assert "nothing complete" in gpurun("fetch", "--into", str(tmp_path / "home"), check=6).stderr
    (box_run / "code/go").touch()
    wait_until(lambda: "whole" in (box_run / "log").read_text())
    gpurun("fetch", "--into", str(tmp_path / "home"))
    assert finals(tmp_path / "home") == [f"models/checkpoint-1/{name}" for name in ("manifest.json", "more", "weights")]
    (box_run / "code/end").touch()
    gpurun("logs", "-f")
