import os
import sys
import threading
import types

import pytest

from remote_payload.agent.box import cgroup, hardware


@pytest.fixture
def nvml(monkeypatch):
    """The shape of pynvml, with one card that tells no power."""

    class NVMLError(Exception):
        pass

    def refuse(handle):
        raise NVMLError("Not Supported")

    fake = types.ModuleType("pynvml")
    fake.NVMLError = NVMLError
    fake.NVML_TEMPERATURE_GPU = 0
    fake.nvmlInit = lambda: None
    fake.nvmlDeviceGetCount = lambda: 1
    fake.nvmlDeviceGetHandleByIndex = lambda index: index
    fake.nvmlDeviceGetTemperature = lambda handle, kind: 61
    fake.nvmlDeviceGetPowerUsage = refuse
    fake.nvmlDeviceGetUtilizationRates = lambda handle: types.SimpleNamespace(gpu=97, memory=40)
    fake.nvmlDeviceGetMemoryInfo = lambda handle: types.SimpleNamespace(total=24 << 30, used=11 << 30, free=13 << 30)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def test_a_sample_of_this_machine_is_plausible():
    sampler = hardware.Sampler()
    assert sampler.sample()["cpu"] is None
    sum(range(3_000_000))
    sample = sampler.sample()
    assert 0 < sample["cpu"] <= 100
    assert 0 < sample["ram"]["used"] < sample["ram"]["total"]
    assert 0 < sample["disk"]["free"] <= sample["disk"]["total"]
    assert 1 <= sample["cpus"] <= os.cpu_count()


def test_a_folder_that_is_gone_costs_only_the_disk_figure(tmp_path):
    assert hardware.sample(str(tmp_path / "gone"))["disk"] is None


@pytest.mark.stand_in
def test_gpus_are_told_with_none_for_what_a_card_does_not_say(nvml):
    (gpu,) = hardware.Sampler().sample()["gpus"]
    assert gpu == {
        "index": 0,
        "temperature": 61,
        "power": None,
        "utilisation": 97,
        "memory_used": 11 << 30,
        "memory_total": 24 << 30,
    }


@pytest.mark.stand_in
def test_a_driver_that_hangs_gives_unknown_and_is_not_asked_again_while_it_hangs(nvml, monkeypatch):
    monkeypatch.setattr(hardware, "NVML_LIMIT", 0.05)
    release, asked = threading.Event(), []

    def hang():
        asked.append(1)
        release.wait(20)

    nvml.nvmlInit = hang
    sampler = hardware.Sampler()
    assert sampler.sample()["gpus"] is None
    assert sampler.sample()["gpus"] is None
    assert len(asked) == 1
    nvml.nvmlInit = lambda: None
    release.set()
    sampler._nvml.result(20)
    assert len(sampler.sample()["gpus"]) == 1


def test_without_a_driver_the_list_is_empty():
    pytest.importorskip("pynvml")
    if os.path.exists("/dev/nvidiactl"):
        pytest.skip("this machine has a driver")
    assert hardware.read_gpus() == []


V2 = {"memory.current": "5000", "memory.max": "9000", "memory.stat": "inactive_file 1500\nanon 3\n"}
V1 = {
    "memory/memory.usage_in_bytes": "5000",
    "memory/memory.limit_in_bytes": "9000",
    "memory/memory.stat": "inactive_file 7\ntotal_inactive_file 1500\n",
}


@pytest.mark.parametrize("files", [V2, V1], ids=["version 2", "version 1"])
def test_memory_of_a_control_group_leaves_out_cache_that_can_be_dropped(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert cgroup.memory(str(tmp_path)) == (3500, 9000)


@pytest.mark.parametrize(("name", "text"), [("memory.max", "max"), ("memory.max", "9223372036854771712")])
def test_a_control_group_without_a_limit_says_so(tmp_path, name, text):
    for file, content in {**V2, name: text}.items():
        (tmp_path / file).write_text(content + "\n")
    assert cgroup.memory(str(tmp_path)) == (3500, None)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_the_processor_quota_is_read_in_both_versions(tmp_path, files, quota):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert cgroup.cpu_quota(str(tmp_path)) == quota


def test_processor_time_is_read_in_both_versions(tmp_path):
    assert cgroup.cpu_seconds(str(tmp_path)) is None
    (tmp_path / "cpuacct").mkdir()
    (tmp_path / "cpuacct" / "cpuacct.usage").write_text("2500000000\n")
    assert cgroup.cpu_seconds(str(tmp_path)) == 2.5
    (tmp_path / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    assert cgroup.cpu_seconds(str(tmp_path)) == 1.5
