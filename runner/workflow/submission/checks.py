"""What can be checked on a box before anything is sent: each check gives one finding, good, doubtful or bad."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from runner.domain.answers.box import Box
from runner.domain.errors import BoxNotReady
from runner.domain.flow import flow
from runner.domain.progress import Reporter
from runner.domain.quantities import format_size, pluralise
from runner.domain.terminal import clean
from runner.transport.link import Link
from runner.workflow.submission import environment
from runner.workflow.submission.plan import Plan

Verdict = Literal["ok", "warn", "fail"]
OWN_NEEDS = 200 << 20  # bytes for logs, the agent and the payload


@dataclass(frozen=True)
class Finding:
    """The result of one check; ``hint`` says what to do about it."""

    what: str
    verdict: Verdict
    said: str
    hint: str = ""


def probe(link: Link, plan: Plan, run_id: str | None, report: Reporter, *, try_torch: bool = False) -> Box:
    """What the box is and has, in one request; ``try_torch`` as in ``probe_request``. Raises HostError when its answer cannot be true."""
    with report.stage("probe") as stage:
        box = link.agent.probe(plan.probe_request(run_id, link.host, try_torch=try_torch))
        stage.update(note=f"{len(box.gpus)} GPUs" if box.gpus else f"{box.cpus} CPUs, no GPU")
    return box


def examine(box: Box, plan: Plan) -> list[Finding]:
    """Compares the box with what the job needs."""
    return [*examine_host(box, plan), *_gpus(box, plan), *_torch(box, plan)]


def examine_host(box: Box, plan: Plan, *, programs: bool = True) -> list[Finding]:
    """The same without its GPUs; without ``programs`` what the program is started with is elsewhere, in a container's image."""
    looks = (_system, _interpreter, _program, _disk) if programs else (_system, _disk)
    return [finding for look in looks for finding in look(box, plan)]


def fail_if_not_ready(findings: list[Finding]) -> None:
    """Raises BoxNotReady with every failure at once."""
    bad = [finding for finding in findings if finding.verdict == "fail"]
    if bad:
        raise BoxNotReady(
            "\n".join(f"{finding.what}: {finding.said}" for finding in bad),
            meaning="Nothing was pushed or started.",
            hint="\n".join(finding.hint for finding in bad if finding.hint),
        )


def _system(box: Box, plan: Plan) -> Iterator[Finding]:
    yield Finding(
        "system", "ok", f"{box.os}, Python {box.python}, {box.cpus} CPUs, {box.ram / 1e9:.0f} GB RAM, user {box.user}"
    )
    install = f"On the box: {box.install_rsync or 'sudo apt-get install -y rsync'}"
    if box.rsync:
        yield Finding("rsync", "ok", box.rsync)
    elif not plan.trees:
        yield Finding("rsync", "warn", "not there: nothing to push, but gpurun fetch will need it", install)
    elif box.apt:
        yield Finding("rsync", "warn", "not there; it is installed with apt-get before the push")
    else:
        yield Finding("rsync", "fail", f"not there, and {box.obstacle or 'this user may not install it'}", install)
    if 0 < box.shm < 1 << 30:
        yield Finding(
            "shared memory",
            "warn",
            f"/dev/shm has {box.shm / 1e6:.0f} MB",
            "PyTorch data loaders with workers may need more (docker run --shm-size).",
        )


def _interpreter(box: Box, plan: Plan) -> Iterator[Finding]:
    """Whether the interpreter that the job names has what the job requires: nothing is installed into it."""
    given, path = box.have.given, clean(plan.requirements.interpreter or "", 200)
    if given is None:
        return
    if given.error:
        hint = "Correct environment.interpreter, or leave it out: a Python is then found or built."
        yield Finding("Python", "fail", f"{path} on the box cannot be used: {given.error}", hint)
    elif given.missing or given.torch:
        hint = environment.how_to_mend(path, given.missing, given.torch)
        yield Finding("Python", "fail", environment.lacks(path, given.missing, given.torch), hint)
    else:
        yield Finding("Python", "ok", f"{path} has what the job requires")


def _torch(box: Box, plan: Plan) -> Iterator[Finding]:
    """Whether torch itself says that it can use the GPUs; it is asked where the box has the run's interpreter already."""
    asked = box.have.torch
    if asked is None or (box.have.given is not None and box.have.given.torch):
        return
    if asked.gpus:
        yield Finding("torch", "ok", f"{asked.interpreter} can use {pluralise(asked.gpus, 'GPU')}")
        return
    said = f"the torch of {asked.interpreter} cannot use the GPU: {asked.why or 'it gives no reason'}"
    leave = "Leave out environment.interpreter, or take another box." if plan.requirements.interpreter else ""
    yield Finding("torch", "fail", said, leave or "Take another box, or set resources: {gpus: 0} for the CPU.")


# Programs that come with a package, and what starts them where only the package is found.
_MODULES = {"torchrun": "torch.distributed.run", "accelerate": "accelerate.commands.accelerate_cli"}


def _program(box: Box, plan: Plan) -> Iterator[Finding]:
    """Whether the box can start the command's first word: else the run would end at once, after the push."""
    word, wanted = (plan.job.command or ("",))[0], plan.requirements
    if box.have.given is not None and box.have.given.error and word in ("python", "python3"):
        return  # the interpreter that the job names cannot be used, which is a finding already
    if not word or ("/" in word and not word.startswith("/")) or "{" in word:
        return  # a recipe; a file of the code, which was checked on the laptop; a number
    found = box.have.program
    if found is not None:
        yield Finding("program", "ok", clean(f"{word} is {found}" if found != word else f"{word} is there", 200))
        return
    builds = wanted.interpreter is None and not box.have.interpreter and not box.have.environment
    if builds and (wanted.ranges or word.startswith(("python", "pip"))) and not word.startswith("/"):
        return  # it may come with the environment that is built then
    module = _MODULES.get(word)
    hint = f"Write [python, -m, {module}, …]" if module else "Correct the first word of the command"
    if not word.startswith("/"):
        hint += ", or have environment.requirements bring it"
    yield Finding(
        "program", "fail", f"the box has no {flow(word)}" + ("" if "/" in word else " in its PATH"), f"{hint}."
    )


def _disk(box: Box, plan: Plan) -> Iterator[Finding]:
    if not box.disk_writable:
        yield Finding(
            "disk",
            "fail",
            f"{box.root} cannot be written: {box.disk_error or 'the box gives no reason'}"
            + (" (inodes: no further file fits)" if box.inodes_free == 0 else ""),
            "Delete files there, or name a volume that can be written: gpurun hosts set HOST --volume /workspace",
        )
        return
    sends = sum(tree.selection.total_bytes for tree in plan.trees if not has_tree(box, plan, tree.name))
    needed = max(plan.job.resources.disk or 0, sends) + OWN_NEEDS
    text = f"{format_size(box.disk_free)} free, {format_size(needed)} needed"
    if needed > box.disk_free:
        yield Finding(
            "disk", "fail", text, "gpurun clean --host HOST shows what gpurun may delete there, or rent a larger disk."
        )
    elif box.inodes_free is not None and box.inodes_free < 10_000 + sum(
        len(tree.selection.files) for tree in plan.trees
    ):
        yield Finding(
            "disk",
            "fail",
            f"only {box.inodes_free} more files fit (inodes)",
            "Delete small files there (caches, old environments).",
        )
    else:
        yield Finding("disk", "ok", text)


def _gpus(box: Box, plan: Plan) -> Iterator[Finding]:
    if plan.job.resources.gpus == 0:
        return
    names = ", ".join(sorted({gpu.name for gpu in box.gpus}))
    each = f"{box.gpus[0].memory_total / 2**30:.0f} GiB each, " if box.gpus else ""
    text = f"{len(box.gpus)} × {names}, {each}driver {box.driver or 'unknown'}"
    lacking = _lacking_gpus(box, plan, text)
    yield lacking or Finding("GPU", "ok", text)
    if not lacking:
        yield from _occupied_gpus(box, plan)


def _lacking_gpus(box: Box, plan: Plan, text: str) -> Finding | None:
    """Why the box's GPUs are not what the job needs."""
    needs = plan.job.resources
    wanted = len(box.gpus) if needs.gpus == "all" else needs.gpus
    large_enough = [gpu for gpu in box.gpus if gpu.memory_total >= (needs.vram or 0)]
    if box.gpus_unknown:
        why = "nvidia-smi and NVML do not answer there: the driver hangs"
        return Finding("GPU", "fail", why, "Restart the box; a container cannot mend its driver.")
    if not box.gpus:
        why = "none there (no NVIDIA driver in this container)"
        hint = "Rent a box with a GPU, or set resources: {gpus: 0} for the CPU."
        if box.slurm is not None and not box.slurm.error:
            hint = f"This host has Slurm {box.slurm.version}: --engine slurm gives the job to its cluster."
        return Finding("GPU", "fail", why, hint)
    if wanted > len(box.gpus):
        hint = f"Set resources: {{gpus: {len(box.gpus)}}}, or rent a larger box."
        return Finding("GPU", "fail", f"{text}; the job wants {wanted}", hint)
    if wanted > len(large_enough):
        why = f"{text}; the job needs {(needs.vram or 0) / 2**30:.0f} GiB on each"
        return Finding("GPU", "fail", why, "Rent a larger GPU, or lower resources.vram if you know better.")
    return None


def _occupied_gpus(box: Box, plan: Plan) -> Iterator[Finding]:
    held = ", ".join(f"GPU {gpu.index} is held by {gpu.held_by}" for gpu in box.gpus if gpu.held_by)
    if held and not plan.job.queue:
        yield Finding("GPU", "warn", held, "queue: true waits for a free one.")
    again = "Restart the box, or where it works again: gpurun hosts use-gpu HOST NUMBER."
    yield from (Finding("GPU", "warn", gpu.set_aside, again) for gpu in box.gpus if gpu.set_aside)
    for gpu in box.gpus:
        if gpu.free and gpu.memory_used > gpu.memory_total // 20:
            used = f"GPU {gpu.index} has {gpu.memory_used / 2**30:.1f} GiB in use by somebody else"
            yield Finding("GPU", "warn", used)


def has_tree(box: Box, plan: Plan, name: str) -> bool:
    """Whether the box has a tree of the plan already (``""`` is the code)."""
    if name == "":
        return bool(box.have.code)
    tree = next(tree for tree in plan.sealed if tree.name == name)
    return box.have.data.get(tree.key, False)
