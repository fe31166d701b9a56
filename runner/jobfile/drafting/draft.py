"""The job file that ``gpurun init`` writes: complete, commented, and checked before it gets its name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner.domain.errors import UserError
from runner.domain.flow import flow
from runner.domain.job_fields import NAME
from runner.jobfile.drafting.survey import Findings, survey
from runner.jobfile.load import examine
from runner.jobfile.problems import InvalidJobFile, Problem, quoted

_TEMPLATE = """\
# A gpurun job. Check it: gpurun validate {file}
# An editor completes and explains the keys if it knows the schema: gpurun validate --schema > job.schema.json,
# and as first line here  # yaml-language-server: $schema=<where you put it>

name: {name}                      # run ids begin with it

# Your own program, as a list of words, or as a script of several lines (`command: |`), which bash -ec runs. {{gpus}} becomes their number,
# {{processes}} one a GPU (at least 1). Instead of it, `recipe: classify` (and others) with `settings:` runs a training script that gpurun
# brings along.
command: {command}

code:
  path: {path}                    # relative to this file; .gitignore is honoured, secrets are never sent
  exclude: []                     # patterns, as in .gitignore, of what else to leave here

# Files and folders that are sent once and shared by later runs, relative to code.path. From elsewhere on this machine:
# {{path: /mnt/corpus, as: data/corpus}}.
data: {data}

environment:
  python: "3.11"
  requirements: {requirements}    # a file, or a list such as [torch, transformers]
  # interpreter: /venv/main/bin/python    # use a Python that the box already has
  variables: {{}}                   # no secrets here

# Names of variables of this machine that the program gets too; they never touch the box's disk.
secrets: {secrets}

hub:
  models: {models}                # access to each is checked before anything is sent

resources:
  gpus: 1                         # a number, or all
  # vram: 20GiB                   # on each GPU
  # disk: 30GiB

# What comes home: names that your program writes in its working directory. `gpurun resume` begins with copies of them and sets
# GPURUN_RESUME, which your program has to look at: "resume" if "GPURUN_RESUME" in os.environ else "scratch".
outputs: {outputs}

# Checkpoints come home while it runs: checkpoint-N, *.ckpt, step-N, files of weights. Another form, and what shows that it is complete (the
# name of a file that is written last, or a time without any change):
# checkpoints: {{pattern: {pattern}, complete_when: DONE}}

# Steps and losses are read from what the Trainer, nanoGPT, Lightning and tqdm print; of other lines with named groups:
# progress: 'step (?P<step>\\d+)/(?P<total>\\d+) loss (?P<loss>\\S+)'

# time_limit: 12h                 # then the run is ended
# price_per_hour: 0.22            # for the cost in `gpurun status`
# cost_limit: 5                   # at that price; then the run is ended
"""
_COMMANDS = {
    "python": ["python"],
    "torchrun": ["torchrun", "--standalone", "--nproc-per-node", "{processes}"],
    "accelerate": ["accelerate", "launch", "--num_processes", "{processes}"],
}
# What is left of a finding that does not validate.
_PLAIN: dict[str, Any] = {
    "requirements": [], "models": [], "data": [], "outputs": ["outputs"], "secrets": [], "script": None
}  # fmt: skip
_PLACEHOLDER = ["python", "-c", "print('put your own program here')"]


def write_draft(folder: Path, name: str | None = None) -> tuple[Path, Findings]:
    """Writes ``jobs/NAME.yaml`` (``NAME.yaml`` where there is no ``jobs/``) and returns its path relative to ``folder``.

    Raises UserError when the file is there already, or the name cannot be a job's.
    """
    if name is not None and not NAME.fullmatch(name):
        raise UserError(
            f"a job cannot be called {quoted(name)}: at most 48 lower-case letters, digits and '-', since run ids begin with it."
        )
    findings = survey(folder, name)
    jobs = folder / "jobs"
    below = Path("jobs") if jobs.is_dir() else Path()
    file = below / f"{findings.name}.yaml"
    findings = _that_validate(folder, file, findings, ".." if below.name else ".")
    _write_new(folder, file, draft(findings, file, ".." if below.name else "."))
    return file, findings


def _that_validate(folder: Path, file: Path, findings: Findings, code_path: str) -> Findings:
    """The findings without those for which the job file would not validate. Raises InvalidJobFile where it does not without all of them."""
    problems = _problems(folder, file, draft(findings, file, code_path))
    for name, plain in _PLAIN.items():
        if not problems:
            break
        simpler = replace(findings, **{name: plain})
        left = _problems(folder, file, draft(simpler, file, code_path))
        if len(left) < len(problems):
            note = f"{name}: left out what does not validate: {problems[0].message}"
            findings, problems = replace(simpler, notes=[*findings.notes, note]), left
    if problems:
        raise InvalidJobFile(problems)
    return findings


def draft(findings: Findings, file: Path, code_path: str) -> str:
    """The text of the job file, with ``code_path`` as ``code.path``."""
    command = [*_COMMANDS[findings.launcher], findings.script] if findings.script else _PLACEHOLDER
    fields: dict[str, str | list[str]] = {
        "name": findings.name,
        "command": command,
        "data": findings.data,
        "requirements": findings.requirements,
        "secrets": findings.secrets,
        "models": findings.models,
        "outputs": findings.outputs,
    }
    pattern = f"{(findings.outputs or ['out'])[0]}/save_*"
    written = {key: flow(value) for key, value in fields.items()}
    return _TEMPLATE.format(file=file, path=code_path, pattern=pattern, **written)


def _write_new(folder: Path, file: Path, text: str) -> None:
    """Writes under a temporary name first. Raises UserError when the final name is taken."""
    with _beside(folder / file, text) as temporary:
        try:
            os.chmod(temporary, 0o644)
            os.link(temporary, folder / file)
        except FileExistsError:
            raise UserError(
                f"{file} is there already, and stays as it is.",
                hint=f"gpurun init ANOTHER-NAME, or look at it: gpurun validate {file}",
            ) from None


def _problems(folder: Path, file: Path, text: str) -> list[Problem]:
    """What is wrong with the text as that job file."""
    with _beside(folder / file, text) as temporary:
        found = examine(temporary, [])[1]
    return [replace(problem, path=str(file)) if problem.path == temporary else problem for problem in found]


@contextmanager
def _beside(final: Path, text: str) -> Iterator[str]:
    """The path of a file with the text beside ``final``; it is gone afterwards."""
    descriptor, temporary = tempfile.mkstemp(dir=final.parent, prefix=f".{final.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        yield temporary
    finally:
        os.unlink(temporary)
