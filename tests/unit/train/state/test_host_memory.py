"""How much host memory is free, by the files of the kernel; and when a copy of a checkpoint is not made."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from remote_payload.train.state import host_memory
from remote_payload.train.state.host_memory import PIECE, HostBuffers, available

GIB = 2**30
FILES = {
    "no container": ({}, 8 * GIB),
    "no limit": ({"memory.max": "max", "memory.current": GIB, "memory.stat": f"inactive_file {GIB}"}, 8 * GIB),
    "a limit": ({"memory.max": 4 * GIB, "memory.current": 3 * GIB, "memory.stat": "anon 5\ninactive_file 4096"}, GIB + 4096),
    "a limit above what the machine has": ({"memory.max": 64 * GIB, "memory.current": GIB, "memory.stat": ""}, 8 * GIB),
    "version 1": (
        {
            "memory/memory.limit_in_bytes": 2 * GIB,
            "memory/memory.usage_in_bytes": GIB,
            "memory/memory.stat": "total_inactive_file 0",
        },
        GIB,
    ),
    "version 1 without a limit": (
        {"memory/memory.limit_in_bytes": 9223372036854771712, "memory/memory.usage_in_bytes": GIB},
        8 * GIB,
    ),
}  # fmt: skip


@pytest.mark.stand_in
@pytest.mark.parametrize("case", FILES)
def test_the_least_of_what_machine_and_container_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    files, free = FILES[case]
    (tmp_path / "memory").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(f"{content}\n")
    (tmp_path / "meminfo").write_text(f"MemTotal:  99 kB\nMemAvailable:  {8 * GIB // 1024} kB\n")
    monkeypatch.setattr(host_memory, "CGROUP", tmp_path)
    monkeypatch.setattr(host_memory, "MEMINFO", tmp_path / "meminfo")
    assert available() == free


def test_this_machine_has_some() -> None:
    free = available()
    assert free is not None and 0 < free < 2**50


def test_memory_is_taken_once_and_a_file_begins_with_a_buffer_of_its_own() -> None:
    buffers = HostBuffers(torch.device("cpu"))
    assert buffers.reserve([10, PIECE + 1, 0]) is None
    assert len(buffers.buffers) == 3
    assert buffers.reserve([PIECE]) is None and len(buffers.buffers) == 3
    buffers.release()
    assert buffers.buffers == []


def test_a_copy_that_does_not_fit_is_not_begun() -> None:
    buffers = HostBuffers(torch.device("cpu"))
    said = buffers.reserve([1 << 60])
    assert said is not None and said.startswith("a copy takes 1,099,511,627,776 MiB of host memory and ")
    assert buffers.buffers == []
