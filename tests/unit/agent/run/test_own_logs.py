"""The log and the hardware's samples among the outputs of a run that is over."""

from __future__ import annotations

import csv
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from remote_payload.agent.run import events, manifest
from remote_payload.agent.run.finished import own_logs
from remote_payload.agent.run.quota import BLOCK, _punch
from remote_payload.agent.wire.paths import BoxPaths, RunPaths

LOG = b"one\r\xff\x00\ntwo\nno end"


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    run = BoxPaths(str(tmp_path / "root")).run("legal-20260102-142030-3a41")
    os.makedirs(run.outputs)
    Path(run.log).write_bytes(LOG)
    Path(run.events).touch()
    return run


def of_job(run: RunPaths, **job: Any) -> None:
    Path(run.job).write_text(json.dumps(job))


def sample(draw: random.Random, gpus: int) -> dict[str, Any]:
    """What the supervisor writes; any value of it may be unknown."""

    def known(value: int) -> int | None:
        return draw.choice([value, value, None])

    gpu = {"temperature": 60, "power": 250, "utilisation": 97, "memory_used": 7 << 30, "memory_total": 8 << 30}
    return {
        "gpus": [{"index": index, **{name: known(value) for name, value in gpu.items()}} for index in range(gpus)],
        "cpu": known(draw.randint(0, 100)), "cpus": 8, "ram": {"used": known(1 << 30), "total": 2 << 30},
        "disk": draw.choice([None, {"free": 5, "total": 9}]),
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(10))
def test_the_table_has_every_sample_and_every_gpu(run: RunPaths, seed: int) -> None:
    draw = random.Random(seed)
    of_job(run, recipe="sft")
    gpus = draw.choice([0, 1, 3])
    samples = [sample(draw, gpus) for _ in range(draw.randint(1, 20))]
    for each in samples:
        events.append(run.events, "hardware", **each)
        events.append(run.events, "step", step=1, name='"hardware"')
        with open(run.events, "ab") as file:  # anybody may write there
            file.write(draw.choice([b"", b'{"type":"hardware","t":"now"}\n', b'["hardware"]\n', b'"hardware" \xff\n']))
    own_logs.add(run)
    with open(f"{run.outputs}/logs/hardware.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    flat = [(each, gpu) for each in samples for gpu in each["gpus"] or [{}]]
    assert len(rows) == len(flat)
    for row, (each, gpu) in zip(rows, flat, strict=True):
        wanted = {
            "cpu_percent": each["cpu"], "cpus": 8, "ram_used": each["ram"]["used"], "ram_total": 2 << 30,
            "disk_free": (each["disk"] or {}).get("free"), "gpu": gpu.get("index"), "gpu_power": gpu.get("power"),
            "gpu_memory_used": gpu.get("memory_used"), "gpu_utilisation": gpu.get("utilisation"),
        }  # fmt: skip
        assert {name: row[name] for name in wanted} == {n: "" if v is None else str(v) for n, v in wanted.items()}
    assert float(rows[0]["seconds"]) == 0.0 and rows[0]["time"].endswith("Z")


@pytest.mark.parametrize(
    ("job", "there"),
    [
        ({"recipe": "sft"}, True),
        ({"recipe": "sft", "outputs": ["models", "logs"]}, True),
        ({"recipe": "sft", "outputs": ["models"]}, False),
        ({"command": ["x"], "outputs": ["logs/"]}, True),
        ({"command": ["x"], "outputs": ["results"]}, False),
        ({"command": ["x"]}, False),
    ],
)
def test_the_log_is_there_byte_for_byte_where_the_job_has_logs_among_its_outputs(
    run: RunPaths, job: dict[str, Any], there: bool
) -> None:
    of_job(run, **job)
    own_logs.add(run)
    listed = {file["path"] for file in manifest.write(run)["files"]}
    assert listed == ({"logs/run.log"} if there else set())
    if there:
        copy = Path(run.outputs, "logs/run.log")
        assert copy.read_bytes() == LOG and copy.samefile(run.log), "another name of the same file takes no space"


def test_a_commands_own_file_of_that_name_stays(run: RunPaths) -> None:
    of_job(run, command=["x"], outputs=["logs"])
    os.mkdir(f"{run.outputs}/logs")
    Path(run.outputs, "logs/run.log").write_text("mine")
    own_logs.add(run)
    assert Path(run.outputs, "logs/run.log").read_text() == "mine"


def test_a_second_end_of_the_same_run_brings_the_table_up_to_date(run: RunPaths) -> None:
    of_job(run, recipe="sft")
    for rows in (1, 2):
        events.append(run.events, "hardware", **sample(random.Random(rows), 0))
        own_logs.add(run)
        table = Path(run.outputs, "logs/hardware.csv").read_text()
        assert len(table.splitlines()) == 1 + rows
    assert sorted(os.listdir(f"{run.outputs}/logs")) == ["hardware.csv", "run.log"]


def test_what_the_log_quota_freed_does_not_come_home_as_zeros(run: RunPaths) -> None:
    of_job(run, recipe="sft")
    with open(run.log, "wb") as log:
        log.write(b"old\n" * BLOCK + b"new\n" * BLOCK)
        log.flush()
        if not _punch(log.fileno(), 4 * BLOCK):
            pytest.skip("this filesystem cannot free the beginning of a file")
    own_logs.add(run)
    copy = Path(run.outputs, "logs/run.log").read_bytes()
    head, _, rest = copy.partition(b"\n")
    assert head.startswith(b"[gpurun: %d bytes" % (4 * BLOCK)) and rest == b"new\n" * BLOCK


def test_logs_that_are_a_file_cost_nothing_else(run: RunPaths) -> None:
    of_job(run, command=["x"], outputs=["logs"])
    Path(run.outputs, "logs").write_text("a file")
    own_logs.add(run)
    assert [file["path"] for file in manifest.write(run)["files"]] == ["logs"]
