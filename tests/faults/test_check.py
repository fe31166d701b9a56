"""What a box lacks, hides or lies about is found before anything is sent."""

import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.box import Box, only_as_root, small_disk
from tests.support.cli import Gpurun

SAY = "print('hello')"
NOISE = 'printf "\\033]52;c;aGFja2Vk\\007 welcome \\000\\377 to your box\\n"; echo and more >&2\n'


def programs(folder: Path, without: set[str]) -> Path:
    """A PATH with everything that is installed here, except what is named."""
    folder.mkdir()
    for place in ("/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin"):
        for program in Path(place).iterdir():
            if not any(program.name.startswith(name) for name in without) and not (folder / program.name).is_symlink():
                (folder / program.name).symlink_to(program)
    return folder


def shim(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n" + script)
    (folder / name).chmod(0o755)
    return folder


def test_12_a_bashrc_that_prints_harms_neither_frames_nor_copies(gpurun: Gpurun, box: Box, job: Any) -> None:
    for name in (".bashrc", ".profile", ".zshenv"):
        (box.home / name).write_text(NOISE)
    address = box.address()
    checked = gpurun("check", str(job(SAY)), "--host", address)
    submitted = gpurun("submit", str(job(SAY, outputs=["models"])), "--host", address)
    assert gpurun("logs", "-f").stdout == "hello\n"
    assert not set(checked.stdout + checked.stderr + submitted.stderr) & set("\x1b\x07\x00")


def test_13_a_box_without_rsync_is_told_what_to_install(gpurun: Gpurun, box: Box, job: Any, tmp_path: Path) -> None:
    path = programs(tmp_path / "bin", {"rsync", "apt", "dnf", "yum"})
    box.configure(PATH=str(path))
    refused = gpurun("submit", str(job(SAY)), "--host", box.address(), check=3)
    assert "rsync" in refused.stderr and "install" in refused.stderr
    assert not list(box.root.glob("runs/*"))


@pytest.mark.slow
def test_13_a_box_without_python_is_told_what_to_install(gpurun: Gpurun, box: Box, job: Any, tmp_path: Path) -> None:
    only_as_root()
    from tests.support.boxes.container import container

    path = programs(tmp_path / "bin", {"python"})
    pythons = [str(each) for place in ("/usr/bin", "/usr/local/bin") for each in Path(place).glob("python3*")]
    hide = [f"mount --bind /dev/null {os.path.realpath(each)}" for each in sorted(pythons) if os.path.isfile(each)]
    box.configure(PATH=str(path))
    with container(box, *dict.fromkeys(hide)):
        refused = gpurun("submit", str(job(SAY)), "--host", box.address(), check=3)
    assert "no Python" in refused.stderr and "apt-get install -y python3" in refused.stderr


def test_13_a_box_that_has_only_python3_runs_python_and_lacks_nothing_else_unsaid(
    gpurun: Gpurun, box: Box, job: Any, tmp_path: Path
) -> None:
    path = programs(tmp_path / "bin", {"python"})
    for python in path.glob("python*"):
        python.unlink()
    (path / "python3").symlink_to("/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable)
    box.configure(PATH=str(path))
    checked = gpurun.json(
        "check", str(job(SAY, command=["no-such-program", "main.py"])), "--host", box.address(), check=3
    )
    assert [each["said"] for each in checked["findings"] if each["verdict"] == "fail"] == [
        "the box has no no-such-program in its PATH"
    ]
    for command in (["python", "main.py"], ["bash", "-c", "python main.py"]):
        gpurun("submit", str(job(SAY, command=command)), "--host", box.address())
        assert gpurun("logs", "-f").stdout == "hello\n"


def test_a_run_that_cannot_start_ends_the_submission_with_its_reason_and_code(
    gpurun: Gpurun, box: Box, job: Any
) -> None:
    file = job(SAY, command=["./gone.sh"])
    (file.parent / "gone.sh").write_text("#!/no/such/interpreter\n")
    (file.parent / "gone.sh").chmod(0o755)
    failed = gpurun("submit", str(file), "--host", box.address(), check=10)
    assert "the interpreter that its first line names is not on the box" in failed.stderr
    document = gpurun.json("submit", str(file), "--host", box.address(), check=10)
    assert document["runs"][0]["status"]["cause"] == "cannot_start"


def test_why_a_run_was_not_started_is_kept_and_shown_later(gpurun: Gpurun, box: Box, job: Any) -> None:
    refused = gpurun(
        "submit", str(job(SAY, environment={"interpreter": "/no/python"})), "--host", box.address(), check=3
    )
    assert (
        "/no/python on the box cannot be used: No such file" in refused.stderr
        and "not started (box)" in gpurun("status").stdout
    )
    box.configure(PIP_NO_INDEX="1", UV_OFFLINE="1")
    file = job(SAY, environment={"requirements": ["no-such-package-of-anybody"]})
    refused = gpurun("submit", str(file), "--host", box.address(), check=5)
    assert "the environment could not be built" in refused.stderr
    status = gpurun("status").stdout
    assert "not started (environment)" in status and "no-such-package-of-anybody" in status
    logs = gpurun("logs", check=5)
    assert "was never started: the environment could not be built" in logs.stderr
    assert "no-such-package-of-anybody" in logs.stderr
    assert [run["not_started"]["cause"] for run in gpurun.json("list")["runs"]] == ["box", "environment"]


@pytest.mark.slow
def test_13_a_box_without_an_nvidia_driver_is_told_so(gpurun: Gpurun, box: Box, job: Any) -> None:
    refused = gpurun("submit", str(job(SAY, resources={"gpus": 1})), "--host", box.address(), check=3)
    assert "GPU: none there" in refused.stderr and "gpus: 0" in refused.stderr
    assert not list(box.root.glob("runs/*"))


@pytest.mark.slow
@pytest.mark.stand_in
def test_14_an_nvidia_smi_that_hangs_is_bounded_and_unknown(gpurun: Gpurun, box: Box, job: Any, tmp_path: Path) -> None:
    box.configure(PATH=f"{shim(tmp_path / 'bin', 'nvidia-smi', 'exec sleep 1000')}:/usr/local/bin:/usr/bin:/bin")
    began = time.monotonic()
    refused = gpurun("submit", str(job(SAY, resources={"gpus": 1})), "--host", box.address(), check=3)
    assert "do not answer" in refused.stderr and "Restart the box" in refused.stderr
    assert time.monotonic() - began < 60
    checked = gpurun.json("check", str(job(SAY)), "--host", box.address())  # a job for the CPU does not mind
    assert checked["ready"]


SMI = 'for i in $(seq 0 {last}); do printf "%s, GPU-%s, {name}, 24576, 0, 0\\n" $i $i; done\n'


@pytest.mark.stand_in
def test_15_ninety_nine_gpus_and_names_with_escapes_are_checked(
    gpurun: Gpurun, box: Box, job: Any, tmp_path: Path
) -> None:
    name = r"\033]52;c;aGFja2Vk\007RTX\0332J\n"
    box.configure(
        PATH=f"{shim(tmp_path / 'bin', 'nvidia-smi', SMI.format(last=98, name='RTX'))}:/usr/local/bin:/usr/bin:/bin"
    )
    many = gpurun("check", str(job(SAY, resources={"gpus": 1})), "--host", box.address())
    assert "64 × RTX" in many.stdout  # no box has more: the rest is not believed
    shim(tmp_path / "bin", "nvidia-smi", SMI.format(last=0, name=name))
    for words in (["check"], ["submit"]):
        escaped = gpurun(*words, str(job(SAY, resources={"gpus": 1})), "--host", box.address(), check=None)
        assert not set(escaped.stdout + escaped.stderr) & set("\x1b\x07")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("ro,size=300m", "cannot be written|read-only|Read-only"),
        ("size=20m", "free"),
        ("size=600m,nr_inodes=300", "inodes"),
    ],
    ids=["read-only", "full", "inode-full"],
)
def test_16_a_disk_that_takes_nothing_is_found_before_the_push(
    gpurun: Gpurun, box: Box, job: Any, tmp_path: Path, options: str, said: str
) -> None:
    with small_disk(tmp_path / "volume", options) as volume:
        for words in (["check"], ["submit"]):
            refused = gpurun(*words, str(job(SAY)), "--host", box.address(), "--volume", str(volume), check=3)
            assert re.search(said, refused.stdout + refused.stderr), refused
            assert "push code" not in refused.stderr
        assert not list(volume.glob(".gpurun-box/incoming/*/*"))
