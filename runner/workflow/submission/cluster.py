"""A submission to a Slurm cluster: what can be checked on its login node, which has neither the GPUs nor the memory of the run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from runner.domain.answers.box import Box, Cluster, Gpu
from runner.domain.job import Job
from runner.domain.progress import Reporter
from runner.transport.link import Link
from runner.workflow.submission import checks, environment
from runner.workflow.submission.checks import Finding
from runner.workflow.submission.plan import Plan

OPTION = "--engine slurm"


def examine(box: Box, plan: Plan) -> list[Finding]:
    """As ``checks.examine`` of a box."""
    return [*checks.examine_host(box, plan, programs=image_of(plan.job) is None), *find_cluster(box, plan)]


def image_of(job: Job) -> str | None:
    """The container's image that the job runs in, if it names one."""
    return job.slurm.container if job.slurm else None


def provision(link: Link, plan: Plan, box: Box, report: Reporter) -> str:
    """As ``environment.provision``; in a container it is the image's own, and nothing is built."""
    if image_of(plan.job) is None:
        return environment.provision(link, plan, box, report)
    return plan.requirements.interpreter or ""


def find_cluster(box: Box, plan: Plan) -> Iterator[Finding]:
    """Whether Slurm is there, answers, and has what the job names."""
    job, cluster = plan.job, box.slurm
    if cluster is None:
        hint = f"Name the cluster's login node, or leave out {OPTION}: the host then runs the job itself."
        yield Finding("Slurm", "fail", "not there (no sbatch in the PATH of a login without a terminal)", hint)
        return
    if cluster.error:
        hint = "Try again when it does. What runs in the cluster goes on."
        yield Finding("Slurm", "fail", f"it does not answer: {cluster.error}", hint)
        return
    wanted = job.slurm.partition if job.slurm else None
    named = wanted.split(",") if wanted else list(cluster.partitions)[:1]
    if missing := [name for name in named if name not in cluster.partitions]:
        has = ", ".join(cluster.partitions) or "none that this user sees"
        yield Finding("Slurm", "fail", f"there is no partition {', '.join(missing)}", f"There are: {has}.")
        return
    yield Finding("Slurm", "ok", f"{cluster.version}, partition {', '.join(named) or 'of its choice'}")
    if box.place is not None and not box.place.network:
        said = f"{box.root} seems to lie on a disk of the login node: the compute nodes need it at the same path"
        yield Finding(
            "Slurm", "warn", said, "gpurun hosts set HOST --volume DIR names a folder of the shared file system."
        )
    yield from _container(cluster, plan)
    yield from _gpus(job, {name: cluster.partitions[name] for name in named})


def _container(cluster: Cluster, plan: Plan) -> Iterator[Finding]:
    image, word = image_of(plan.job), (plan.job.command or ("python",))[0]
    if image is None:
        return
    if not cluster.containers:
        said = "srun has no --container-image there: the cluster is without pyxis"
        yield Finding(
            "container", "fail", said, "Leave out slurm.container, or load your cluster's own in the command."
        )
    elif plan.requirements.interpreter is None and (word in ("python", "python3") or plan.requirements.ranges):
        hint = "Write environment: {interpreter: /usr/bin/python3}, with the image's own path, and requirements that it has."
        yield Finding("container", "fail", f"the Python in {image} is not named", hint)
    else:
        yield Finding("container", "ok", image)


def _gpus(job: Job, partitions: dict[str, str]) -> Iterator[Finding]:
    gpus = job.resources.gpus
    if gpus == 0:
        return
    if gpus == "all":
        hint = "Set resources.gpus to a number."
        yield Finding("GPU", "fail", "a cluster has no number of GPUs to take all of", hint)
    elif partitions and not any(partitions.values()):
        hint = "Name another one under slurm: {partition: …}, or set resources: {gpus: 0} for the CPU."
        yield Finding("GPU", "fail", f"no node of {', '.join(partitions)} has GPUs", hint)
    else:
        said = ", ".join(sorted({each for each in partitions.values() if each}))
        yield Finding("GPU", "ok", f"{gpus} of a node with {said}" if said else f"{gpus}, as Slurm decides")
    if job.resources.vram:
        hint = "slurm: {gpu_type: …} or {constraint: …} names the kind that has it."
        yield Finding("GPU", "warn", "Slurm does not know resources.vram: any GPU of the partition may be given", hint)
    if job.slurm and job.slurm.requeue and not job.time_limit:
        yield Finding("Slurm", "ok", "requeue: true at the time limit of the partition")


def for_forecast(box: Box, job: Job) -> Box:
    """The box that the forecast compares with: as many GPUs as the job gets, of a size that nobody knows yet."""
    count = job.resources.gpus if isinstance(job.resources.gpus, int) else 1
    unknown = tuple(Gpu(number, "a GPU of the cluster", "", 0, 0, None) for number in range(count))
    return replace(box, gpus=unknown, gpus_unknown=False, ram=0, ram_free=None)
