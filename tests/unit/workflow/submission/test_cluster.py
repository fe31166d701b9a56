"""What is said of a Slurm cluster before anything is sent, from facts that its login node reported."""

from dataclasses import replace

import pytest

from runner.domain.answers.box import Box, Cluster
from runner.domain.job import Environment, Job, Resources, Slurm
from runner.workflow.submission.cluster import find_cluster, for_forecast
from runner.workflow.submission.plan import Plan, requirements_of
from tests.unit.workflow.submission.test_checks import GOOD

BOX = Box.parse(GOOD)
CLUSTER = Cluster("22.05.8", {"gpu": "gpu:a100:8", "cpu": ""}, None, False)
JOB = Job(name="a", command=("bash", "-c", "true"), resources=Resources(gpus=2))


def said(job: Job, cluster: "Cluster | None") -> "list[tuple[str, str]]":
    plan = Plan(job, None, (), requirements_of(job), None, {})
    return [(each.verdict, each.said) for each in find_cluster(replace(BOX, slurm=cluster), plan)]


@pytest.mark.parametrize(
    ("job", "cluster", "expected"),
    [
        (JOB, None, ("fail", "no sbatch")),
        (JOB, replace(CLUSTER, error="Connection refused"), ("fail", "Connection refused")),
        (replace(JOB, slurm=Slurm(partition="gpu,big")), CLUSTER, ("fail", "there is no partition big")),
        (JOB, CLUSTER, ("ok", "22.05.8, partition gpu")),
        (JOB, CLUSTER, ("ok", "2 of a node with gpu:a100:8")),
        (replace(JOB, slurm=Slurm(partition="cpu")), CLUSTER, ("fail", "no node of cpu has GPUs")),
        (replace(JOB, resources=Resources(gpus="all")), CLUSTER, ("fail", "no number of GPUs")),
        (replace(JOB, resources=Resources(gpus=1, vram=1 << 30)), CLUSTER, ("warn", "resources.vram")),
        (replace(JOB, slurm=Slurm(container="img")), CLUSTER, ("fail", "without pyxis")),
        (replace(JOB, slurm=Slurm(container="img")), replace(CLUSTER, containers=True), ("ok", "img")),
        (
            replace(JOB, command=("python", "t.py"), slurm=Slurm(container="img")),
            replace(CLUSTER, containers=True),
            ("fail", "is not named"),
        ),
        (
            replace(
                JOB,
                command=("python", "t.py"),
                slurm=Slurm(container="img"),
                environment=Environment(interpreter="/usr/bin/python3"),
            ),
            replace(CLUSTER, containers=True),
            ("ok", "img"),
        ),
    ],
)
def test_what_the_login_node_lets_one_know(job: Job, cluster: "Cluster | None", expected: "tuple[str, str]") -> None:
    assert any(verdict == expected[0] and expected[1] in text for verdict, text in said(job, cluster)), said(
        job, cluster
    )


def test_the_login_nodes_memory_and_gpus_are_not_those_of_the_run() -> None:
    box = for_forecast(BOX, JOB)
    assert len(box.gpus) == 2 and not any(gpu.memory_total for gpu in box.gpus) and not box.ram
