"""GPU facts where there is no GPU: nvidia-smi's text, and a driver that hangs."""

import json
import subprocess
import threading

import pytest

from remote_payload.agent.box import gpus
from remote_payload.agent.box.gpus import Gpu

SMI = """0, GPU-8f6d, NVIDIA H100 80GB HBM3, 81559, 4, 0
1, GPU-9a7b, NVIDIA GB10, [N/A], [N/A], [N/A]
not, a line
2, GPU-\x1b[31m, name, with, commas, x, 1
"""


def test_the_text_of_nvidia_smi_is_read_and_what_makes_no_sense_left_out():
    assert gpus.parse_smi(SMI) == [
        Gpu(0, "GPU-8f6d", "NVIDIA H100 80GB HBM3", 81559 << 20, 4 << 20, 0),
        Gpu(1, "GPU-9a7b", "NVIDIA GB10", 0, 0, None),
    ]


def test_ninety_nine_gpus_are_cut_to_a_bound():
    assert len(gpus.parse_smi("".join(f"{n}, GPU-{n}, x, 1, 1, 1\n" for n in range(99)))) == gpus.MAX_GPUS


@pytest.mark.stand_in
def test_a_driver_that_hangs_is_unknown_not_none(monkeypatch):
    monkeypatch.setattr(gpus, "NVML_LIMIT", 0.05)
    monkeypatch.setattr(gpus, "_from_nvml", lambda: threading.Event().wait(30))
    assert gpus.list_gpus() is None


@pytest.mark.stand_in
def test_nvidia_smi_is_asked_where_nvml_cannot_be_had(monkeypatch, tmp_path):
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\ncat <<'END'\n{SMI}END\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert [gpu.number for gpu in gpus.list_gpus()] == [0, 1]


@pytest.mark.stand_in
def test_nvidia_smi_that_hangs_is_unknown_too(monkeypatch, tmp_path):
    def hang(*args, **more):
        raise subprocess.TimeoutExpired("nvidia-smi", 15)

    monkeypatch.setattr(subprocess, "run", hang)
    assert gpus._from_smi() is None


def test_a_machine_without_a_driver_has_no_gpus():
    assert gpus.list_gpus() == []


@pytest.mark.stand_in
def test_the_stand_in_is_read_from_its_file(monkeypatch, tmp_path):
    place = tmp_path / "gpus.json"
    row = {"number": 0, "uuid": "GPU-1", "name": "H100", "memory_total": 80, "memory_used": 1, "utilisation": None}
    place.write_text(json.dumps([row]))
    monkeypatch.setenv("GPURUN_FAKE_GPUS", str(place))
    assert gpus.list_gpus() == [Gpu(0, "GPU-1", "H100", 80, 1, None)]
