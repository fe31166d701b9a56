"""What the record says of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote_payload.train.results import machine

FIRST_LINES = {
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023": "535.104.05",
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.14  Release Build  (dvs-builder@U16)": "550.54.14",
    "GCC version:  gcc version 12.2.0": None,
}


@pytest.mark.stand_in  # the driver's file
@pytest.mark.parametrize("line", FIRST_LINES)
def test_the_driver_is_read_from_its_own_file(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "version")
    assert machine.hardware(1)["driver"] is None
    (tmp_path / "version").write_text(f"{line}\nGCC version:  gcc version 12.2.0\n")
    assert machine.hardware(1)["driver"] == FIRST_LINES[line]
