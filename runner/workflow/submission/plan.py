"""What a submission will send. It is worked out on the laptop; nothing is contacted here."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from runner.domain.errors import TransferFailed, UserError
from runner.domain.host import Host
from runner.domain.job import Job
from runner.domain.requests import DataRequest, Expected, ProbeRequest
from runner.domain.run import Run
from runner.jobfile import changed_since
from runner.push.digest import Contents, digest, fingerprint, read_contents
from runner.push.problems import fail_if_not_sendable, warnings
from runner.push.selection import Selection, select_code, select_data
from runner.transport import bundle


@dataclass(frozen=True)
class Tree:
    """The files of one folder to push, and the digest that tells whether the box has them."""

    name: str  # relative to code.path; "" for the code itself
    selection: Selection
    digest: str
    member: str | None = None  # the file's name, for a data entry that is one file rather than a folder
    contents: Contents | None = (
        None  # sizes and times are not to be trusted: what is equal is known by its content alone
    )
    permissions: bool = True  # False where the box's filesystem keeps none
    fixed: bool = (
        False  # gpurun's own copy, or verified results: it is not selected again, and its times are to be trusted
    )

    @property
    def title(self) -> str:
        return self.name or "code"

    @property
    def expected(self) -> Expected:
        """What the box compares with what has arrived."""
        marks = fingerprint(self.selection, self.contents, self.permissions)
        return {
            "digest": self.digest,
            "marks": marks,
            "contents": self.contents is not None,
            "permissions": self.permissions,
        }

    @property
    def source(self) -> Path:
        return self.selection.root

    @property
    def key(self) -> str:
        """The name under ``$ROOT/data``: readable, and different for different content."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:40] or "data"
        return f"{slug}-{self.digest[:24]}"


@dataclass(frozen=True)
class Requirements:
    """The Python of the payload: exact versions to install, and the ranges that an interpreter of the box may satisfy instead."""

    python: str | None
    interpreter: str | None
    locked: str
    ranges: tuple[str, ...]

    @property
    def key(self) -> str:
        """A digest of the content: the same packages are installed once on each box."""
        text = "\0".join(["1", self.python or "", self.locked])
        return "py-" + hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Plan:
    """Everything a submission sends or asks for."""

    job: Job
    code: Tree | None
    data: tuple[Tree, ...]
    requirements: Requirements
    payload: bundle.Bundle | None
    secrets: dict[str, str]  # never stored, never shown: from here into the agent's stdin
    outputs: Tree | None = None  # what the run begins with, where it goes on from a run of another box
    shared: tuple[DataRequest, ...] = ()  # what other runs of the box wrote, and this one reads

    @property
    def trees(self) -> tuple[Tree, ...]:
        return ((self.code,) if self.code else ()) + self.sealed

    @property
    def sealed(self) -> tuple[Tree, ...]:
        """What gets a name below ``$ROOT/data`` before the launch."""
        return (*self.data, *((self.outputs,) if self.outputs else ()))

    @property
    def warnings(self) -> list[str]:
        """What is allowed and probably not meant."""
        return [*self.job.warnings, *(each for tree in self.trees for each in warnings(tree.title, tree.selection))]

    @property
    def kind(self) -> Hashable:
        """The same for runs of which a box that is ready for one is ready for the other: the same files, packages and resources."""
        sent = tuple((tree.name, tree.digest, tree.member) for tree in self.trees)
        payload = self.payload.sha256 if self.payload else None
        program = self.job.command[0] if self.job.command else None
        path = self.job.environment.variables.get("PATH")
        runs = tuple(sorted((name, str(output)) for name, output in self.job.run_outputs.items()))
        return sent, runs, payload, self.requirements, program, path, self.job.resources, self.job.queue

    def probe_request(self, run_id: str | None, host: Host, *, try_torch: bool = False) -> ProbeRequest:
        """What the box is asked in one request; with ``try_torch`` its torch is asked too, which takes seconds."""
        return {
            "run_id": run_id,
            "interpreters": list(host.interpreters),
            "job_name": self.job.name,
            "code_digest": self.code.digest if self.code else None,
            "data": [{"key": tree.key, "digest": tree.digest, "name": tree.name} for tree in self.sealed],
            "env_key": self.requirements.key,
            "python": self.requirements.python,
            "requirements": list(self.requirements.ranges),
            "interpreter": self.requirements.interpreter,
            "program": self.job.command[0] if self.job.command else None,
            "variables": {name: value for name, value in self.job.environment.variables.items() if name == "PATH"},
            "payload": self.payload.sha256 if self.payload else None,
            "gpus": self.job.resources.gpus,
            "try_torch": try_torch,
            "disk": self.job.resources.disk,
        }


def make_plan(job: Job, *, checksum: bool = False, code: Tree | None = None, outputs: Tree | None = None) -> Plan:
    """Selects what is sent and reads what is named. Raises UserError for a secret that is not set here, or nothing to send.

    ``code`` is sent instead of the code in the job's folder; the run begins with ``outputs``.
    """
    return Plan(
        job=job,
        code=(code or code_tree(job, checksum=checksum)) if job.pushes_code else None,
        outputs=outputs,
        data=tuple(_tree(job, name, checksum) for name in job.data_places),
        requirements=requirements_of(job),
        payload=bundle.payload() if job.recipe else None,
        secrets=secrets_of(job),
    )


def code_tree(job: Job, *, checksum: bool = False) -> Tree:
    """The code in the job's folder as it is now. Raises UserError where it cannot be sent."""
    return _tree(job, "", checksum)


def requirements_of(job: Job) -> Requirements:
    """A recipe's own locked set and what the job adds to it; for a command just what the job names."""
    own = list(job.environment.requirements)
    python, interpreter = job.environment.python, job.environment.interpreter
    if not job.recipe:
        return Requirements(python, interpreter, "\n".join(own), tuple(own))
    if "WANDB_API_KEY" in {*job.secrets, *job.environment.variables} and not any(map(_is_wandb, own)):
        own.append("wandb>=0.19")  # only who sets the key needs the package
    folder = resources.files("remote_payload") / "environments"
    locked = (folder / "lock.txt").read_text("utf-8")
    ranges = [line.strip() for line in (folder / "requirements.in").read_text("utf-8").splitlines()]
    wanted = [line.split(" #")[0].strip() for line in ranges if line and not line.startswith("#")]
    return Requirements(python, interpreter, "\n".join([locked, *own]), (*wanted, *own))


def _is_wandb(line: str) -> bool:
    return re.match(r"wandb\b", line.strip(), re.IGNORECASE) is not None


def select_again(job: Job, tree: Tree, own_output: Iterable[str]) -> Tree:
    """The tree as it is now, without the files that gpurun's own output is written to. Raises TransferFailed when it cannot be sent now."""
    if tree.fixed:
        message = f"{tree.title}: files in {tree.source} were changed during the push"
        raise TransferFailed(message, meaning="The run was not started.", hint="Repeat the command.")
    try:
        return replace(_tree(job, tree.name, tree.contents is not None, own_output), permissions=tree.permissions)
    except UserError as error:  # it could be sent a moment ago: the record stays, the push can go on
        meaning = "It was changed during the push. The run was not started."
        raise TransferFailed(error.message, meaning=meaning, hint=error.hint) from None


def fail_if_job_changed(job: Job, run: Run) -> None:
    """Raises TransferFailed when the job file excludes, names or installs other things now than when ``job`` was read from it.

    What was pushed follows the old file: a file that was excluded meanwhile would be on the box all the same.
    """
    fields = changed_since(job)
    if fields:
        raise TransferFailed(
            f"{job.file} was changed after this command had read it: {', '.join(fields)}",
            meaning="The run was not started: it would have run a mixture of before and after.",
            hint=f"Repeat it, only what changed is sent again: {run.how_to_start}",
        )


def _tree(job: Job, name: str, checksum: bool, own_output: Iterable[str] = ()) -> Tree:
    path = job.data_places[name] if name else job.folder
    selection = select_data(job, name, own_output) if name else select_code(job, own_output)
    fail_if_not_sendable(name or "code", selection)
    contents = read_contents(selection) if checksum else None
    return Tree(name, selection, digest(selection, contents), path.name if path.is_file() else None, contents)


def unset_secrets(job: Job) -> list[str]:
    """The names under ``secrets:`` for which this machine's environment has no value."""
    return [name for name in job.secrets if not os.environ.get(name)]


def secrets_of(job: Job) -> dict[str, str]:
    """The values of what ``secrets:`` names, from this machine's environment. Raises UserError for one that is not set."""
    missing = unset_secrets(job)
    if missing:
        raise UserError(
            f"the job names secrets that are not set here: {', '.join(missing)}",
            meaning="Nothing was contacted.",
            hint=f"export {missing[0]}=…, then repeat the command.",
        )
    return {name: os.environ[name] for name in job.secrets}
