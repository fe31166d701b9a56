"""The command line of a program that srun starts: in a container, which no test here has, and on several nodes (tests/integration)."""

import os

import pytest

from remote_payload.agent.run.order import LaunchFile
from remote_payload.agent.run.slurm import step
from remote_payload.agent.wire.paths import BoxPaths

PATHS = BoxPaths("/home/u/.gpurun-box")
RUN = PATHS.run("x-20260102-142030-7f3a")


def started(**slurm: object) -> "tuple[str, ...]":
    return step.arguments(PATHS, RUN, LaunchFile(("train", "--fast"), {}, slurm=slurm))


def test_on_one_node_the_program_is_the_supervisors_own_child() -> None:
    assert started() == started(nodes=1) == ("train", "--fast")


@pytest.mark.stand_in
def test_in_a_container_it_finds_its_files_at_the_same_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    words = started(container="nvcr.io#nvidia/pytorch:25.01-py3")
    assert words[0] == "srun" and words[-2:] == ("train", "--fast")
    assert "--container-image=nvcr.io#nvidia/pytorch:25.01-py3" in words
    assert f"--container-workdir={RUN.code}" in words and f"--container-mounts={PATHS.root}:{PATHS.root}" in words


def test_each_node_has_its_own_rank() -> None:
    words = started(nodes=3)
    assert "--nodes=3" in words and "--kill-on-bad-exit=1" in words and step.RANK in words
