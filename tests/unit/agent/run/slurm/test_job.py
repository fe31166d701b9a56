"""What sbatch is told of a run, and what of Slurm's output is read."""

import pytest

from remote_payload.agent.box import slurm
from remote_payload.agent.run.order import LaunchFile
from remote_payload.agent.run.slurm import job
from remote_payload.agent.run.slurm.job import OPTIONS, arguments, warning
from remote_payload.agent.wire.paths import BoxPaths
from runner.domain.job import Slurm

RUN = BoxPaths("/root/.gpurun-box").run("x-20260102-142030-7f3a")


def launch(**given) -> LaunchFile:
    return LaunchFile(("true",), {}, **{"slurm": {}, **given})


def test_resources_and_the_rest_become_options() -> None:
    words = arguments(
        RUN,
        launch(gpus=2, time_limit=3601.0, slurm={"gpu_type": "a100", "partition": "p", "mem": "64G", "requeue": True}),
    )
    for word in (
        "--gpus=a100:2",
        "--nodes=1",
        "--time=61",
        "--partition=p",
        "--mem=64G",
        "--requeue",
        "--signal=B:TERM@300",
    ):
        assert word in words
    assert words[-1] == RUN.slurm + "/script" and "--open-mode=append" in words
    plain = arguments(RUN, launch())
    assert "--no-requeue" in plain and not [word for word in plain if word.startswith(("--gpus", "--time", "--mem"))]


def test_every_field_of_the_job_file_reaches_slurm() -> None:
    known = {*OPTIONS, "gpu_type", "requeue", "container"}
    assert {*Slurm.__dataclass_fields__} == known


@pytest.mark.parametrize(("limit", "expected"), [(None, 300), (3600.0, 300), (600.0, 200), (60.0, 20), (1.0, 1)])
def test_a_short_job_is_warned_later(limit: "float | None", expected: int) -> None:
    assert warning(launch(time_limit=limit)) == expected


def test_lines_of_the_list_are_read_and_others_left_out(monkeypatch) -> None:
    lines = [
        "7|PENDING|1795348544|1:00:00||Resources", "8|RUNNING|1795348544|2-00:00:30|n1|None",
        "9|PENDING|N/A|UNLIMITED||(Nodes required for job are DOWN, DRAINED | reserved)", "10_3|RUNNING|1|1:00|n1|None", "", "nonsense|a",
    ]  # fmt: skip
    monkeypatch.setattr(slurm, "_ask", lambda words: "\n".join(lines))
    found = slurm.jobs()
    assert sorted(found) == [7, 8, 9]
    assert found[7].starts == 1795348544 and found[7].left == 3600 and found[8].left == 172830
    assert found[9].starts is None and found[9].left is None and found[9].reason.endswith("| reserved)")


def test_a_refused_job_whose_number_nobody_heard_is_found_by_its_name(tmp_path, monkeypatch) -> None:
    run = BoxPaths(str(tmp_path)).run(RUN.run_id)
    (tmp_path / "runs" / RUN.run_id).mkdir(parents=True)

    def late(arguments, environment) -> int:
        raise slurm.SlurmError("Socket timed out on send/recv operation")

    monkeypatch.setattr(slurm, "submit", late)
    monkeypatch.setattr(slurm, "find_by_name", lambda name: 41 if name == RUN.run_id else None)
    job.submit(BoxPaths(str(tmp_path)), run, launch(), {})
    assert job.files.read_number(run) == 41
