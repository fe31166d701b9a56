"""From a job file to a Job: the line of checks, each of which reports all it finds."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from runner.domain.job import Job
from runner.domain.sweep import SweepRun, expand
from runner.jobfile import unknown_keys
from runner.jobfile.boxes_rule import check_boxes
from runner.jobfile.checkpoint_rule import check_checkpoints
from runner.jobfile.command_words import check_command
from runner.jobfile.fields import check_fields, with_lists
from runner.jobfile.folder_checks import FolderChecks
from runner.jobfile.overrides import apply_overrides
from runner.jobfile.problems import InvalidJobFile, Place, Problem
from runner.jobfile.progress_rule import check_progress
from runner.jobfile.requirements import RequirementsReader
from runner.jobfile.settings.paths import resolve_settings_paths
from runner.jobfile.settings.publish import check_repository, with_repository
from runner.jobfile.tree import Node, read_tree

MAX_BYTES = 1 << 20
_SELECTING = ("code", "data", "outputs", "environment")  # outputs too: they are not sent


def load(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> Job:
    """The checked job of a file, with ``--set`` overrides in place. Raises InvalidJobFile with every problem there is."""
    job, problems = examine(os.fspath(path), list(overrides))
    if job is None or problems:
        raise InvalidJobFile(problems)
    return job


def load_runs(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> list[tuple[Job, str | None]]:
    """The jobs of a file, each with the name of its experiment: one job and None, or a job for each run of its ``sweep``."""
    overrides = list(overrides)
    job = load(path, overrides)
    if not job.sweep:
        return [(job, None)]
    runs = expand(job.name, job.sweep)
    return [(load(path, [*overrides, *_as_overrides(run)]), run.experiment) for run in runs]


def _as_overrides(run: SweepRun) -> list[str]:
    values = [f"{field}={json.dumps(value)}" for field, value in run.overrides.items()]
    return [*values, f"name={run.name}", "sweep=null"]


def changed_since(job: Job) -> list[str]:
    """The fields that select the files to send and the packages to install, as far as the job file changed them after ``job`` was read.

    Empty for a job that was not read from a job file, and where that file is gone. Other problems of the file or of its folder
    do not count.
    """
    if job.file is None or job.overrides is None or not job.file.exists():
        return []
    now, _ = examine(os.fspath(job.file), list(job.overrides))
    if now is None:
        return ["it is no valid job file now"]
    return [field for field in _SELECTING if getattr(now, field) != getattr(job, field)]


def check(paths: Iterable[str | os.PathLike[str]]) -> list[Problem]:
    """Every problem of several job files; nothing but the disk is looked at."""
    return [problem for path in paths for problem in InvalidJobFile(examine(os.fspath(path), [])[1]).problems]


def examine(path: str, overrides: list[str]) -> tuple[Job | None, list[Problem]]:
    """The job, or None, with all problems of the file."""
    text, problem = _read(path)
    if text is None:
        return None, [problem] if problem else []
    tree, problems = read_tree(text, path)
    if tree is None or tree.kind != "mapping":
        return None, problems or [Problem(path, Place(), _no_job(tree))]
    tree, wrong = apply_overrides(tree, overrides)
    tree = with_lists(tree)
    problems += wrong
    problems += _one_payload(tree, path)
    job, wrong = check_fields(tree, path, _folder(tree, path))
    problems += wrong
    problems += _sweep(job, tree, path)
    problems += check_repository(job, tree, path)
    problems += _cost_limit(job, tree, path)
    problems += check_boxes(job, tree, path)
    problems += check_checkpoints(job, tree, path)
    problems += check_progress(job, tree, path)
    checks = FolderChecks(tree, path, _folder(tree, path))
    if not checks.folder_is_there():
        return None, problems + checks.problems
    checks.run()
    check_command(checks)
    lines = RequirementsReader(checks).read(tree.get("environment", "requirements"))
    job = with_repository(resolve_settings_paths(job, tree, checks)) if job else None
    problems += checks.problems
    if job is None:
        return None, problems
    job = replace(job, environment=replace(job.environment, requirements=lines))
    return job.at(checks.folder, Path(path).absolute(), tuple(overrides)), problems


def _cost_limit(job: Job | None, tree: Node, path: str) -> list[Problem]:
    """A limit of the cost needs a price."""
    if job is None or job.cost_limit is None or job.price_per_hour is not None:
        return []
    message = "cost_limit needs price_per_hour: what the box costs an hour, in the same currency"
    return [Problem(path, tree.key_place("cost_limit"), message)]


def _read(path: str) -> tuple[str | None, Problem | None]:
    """The file's text; a device, a pipe and anything over 1 MiB is refused before it is read."""
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):
            return None, Problem(path, Place(), "this is not a file")
        if about.st_size > MAX_BYTES:
            return None, Problem(
                path, Place(), f"{about.st_size:,} bytes are too many for a job file (the limit is 1 MiB)"
            )
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES)
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            return None, Problem(path, Place(), "this is UTF-16 text: save the file as UTF-8")
        return raw.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig", "replace")
        place = Place(before.count("\n") + 1, len(before) - before.rfind("\n"))
        return None, Problem(path, place, f"not UTF-8 text: byte 0x{raw[error.start]:02x}")
    except FileNotFoundError:
        return None, Problem(path, Place(), "there is no such file: `gpurun init` writes one to start from")
    except (OSError, ValueError) as error:
        return None, Problem(path, Place(), f"cannot be read: {getattr(error, 'strerror', None) or error}")


def _no_job(tree: Node | None) -> str:
    if tree is None or (tree.kind == "scalar" and tree.value is None):
        return "the file is empty: `gpurun init` writes one to start from"
    kind = "a list" if tree.kind == "list" else "text"
    return f"a job file is made of 'key: value' lines; this is {kind}"


def _one_payload(tree: Node, path: str) -> list[Problem]:
    """Exactly one of ``recipe`` and ``command``."""
    if "recipe" in tree.entries and "command" in tree.entries:
        later = max(tree.key_place("recipe"), tree.key_place("command"))
        return [Problem(path, later, "a job has either recipe: or command:, not both")]
    if any(unknown_keys.stands_for(key, "command") for key in tree.entries):
        return []  # check_fields reports that key
    if "recipe" not in tree.entries and "command" not in tree.entries:
        message = (
            "neither recipe: nor command: says what to run, such as recipe: classify or command: [python, train.py]"
        )
        return [Problem(path, tree.place, message)]
    return []


def _sweep(job: Job | None, tree: Node, path: str) -> list[Problem]:
    """Problems of expanding the sweep. Its values are checked when each of its runs is loaded."""
    if job is None or not job.sweep:
        return []
    try:
        expand(job.name, job.sweep)
    except ValueError as error:
        return [Problem(path, tree.key_place("sweep"), str(error))]
    return []


def _folder(tree: Node, path: str) -> Path:
    node = tree.get("code", "path")
    written = node.text if node and isinstance(node.value, str) else "."
    return Path(os.path.abspath(Path(path).parent / Path(written).expanduser()))
