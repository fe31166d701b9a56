"""A job: a training run as the user asked for it, with types and units. The fields of these classes are the fields of a job file.

``runner/jobfile`` reads a job file with all checks, ``domain/recorded_job.py`` reads the job in a run's record. Both give a ``Job``.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remote_payload.settings import is_own
from runner.domain.flow import flow
from runner.domain.job_fields import (
    Command,
    CompleteWhen,
    DataName,
    Duration,
    Gpus,
    Interpreter,
    Name,
    Output,
    Pattern,
    Python,
    Repository,
    Requirements,
    Size,
    SlurmMemory,
    SlurmWord,
    Variable,
    VariableValue,
)
from runner.domain.shell_words import EXPANDED

# The settings of a recipe as JSON; their fields are those of the recipe's dataclass in remote_payload/settings.
Settings = dict[str, Any]
# The values of each swept field, by its dotted path.
Axes = dict[str, tuple[Any, ...]]
RECIPE_OUTPUTS = ("models", "logs", "reports", "checkpoints", "training_metadata.json")
_TOLERANCE = {"gt": 0, "le": 1000}
# How the name of a variable with a secret ends: WANDB_API_KEY, not MAX_TOKENS.
SECRET_NAME = re.compile(
    r"(^|_)(API_?KEY|ACCESS_KEY|SECRET_?KEY|PRIVATE_KEY|AUTH_?KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIALS?)$", re.I
)


@dataclass(frozen=True)
class RunOutput:
    """What an earlier run wrote: ``path`` in its outputs."""

    run_id: str
    path: str

    def __str__(self) -> str:
        return f"run:{self.run_id}/{self.path}"


def run_output(written: str) -> RunOutput | None:
    """``run:ID/path`` in its parts (the path may be empty); None for a path of this machine."""
    if not written.startswith("run:"):
        return None
    run_id, _, path = written.removeprefix("run:").partition("/")
    return RunOutput(run_id, path.strip("/"))


def data_place(written: str | tuple[str, str], folder: Path) -> tuple[str, Path]:
    """Where an entry of ``data:`` appears in the working directory, and where it is: a path inside ``folder`` keeps its place, one from
    elsewhere has its last name, unless a name is written too. A link to a file is that file.
    """
    path = written if isinstance(written, str) else written[0]
    top = Path(os.path.normpath(folder))
    source = Path(os.path.normpath(top / Path(path).expanduser()))
    if not isinstance(written, str):
        name = os.path.normpath(written[1])
    else:
        name = str(source.relative_to(top)) if source.is_relative_to(top) else source.name
    return name, Path(os.path.realpath(source)) if source.is_symlink() and source.is_file() else source


@dataclass(frozen=True)
class Code:
    path: str = "."
    """The folder with code, data and requirements, relative to this file. A recipe job sends only its data."""
    exclude: tuple[str, ...] = ()
    """Patterns, as in .gitignore, of files that are not sent although git would keep them."""
    include: tuple[str, ...] = ()
    """Files that are sent although .gitignore or the list of secrets leaves them out. Exact paths, no patterns."""


@dataclass(frozen=True)
class DataFrom:
    path: str
    """A file or folder of this machine, relative to code.path or absolute; or run:ID/path, what an earlier run wrote."""
    as_: DataName = field(metadata={"alias": "as"})
    """Where the program finds it: a path in its working directory."""


@dataclass(frozen=True)
class Environment:
    python: Python | None = None
    """The Python version on the box; by default the recipe's, or the box's own."""
    requirements: Requirements = ()
    """A requirements file (relative to code.path) or a list of requirements."""
    interpreter: Interpreter | None = None
    """A Python on the box to use as it is, such as /venv/main/bin/python. Nothing is installed into it: it must have what the
    job requires."""
    variables: dict[Variable, VariableValue] = field(default_factory=dict)
    """Environment variables of the payload. No secrets: those are named under secrets."""


@dataclass(frozen=True)
class Hub:
    models: tuple[Repository, ...] = ()
    """Models of the hub that the job reads: access is checked before anything is sent. A recipe adds its own."""
    allow_write_token: bool = False
    """Send a token that may write. Without it such a token is refused: whoever owns the box could change your models."""


@dataclass(frozen=True)
class Resources:
    gpus: Gpus = 1
    """How many GPUs, or all; of each box, where there are several."""
    boxes: int = field(default=1, metadata={"ge": 1, "le": 64})
    """How many boxes work on one run, each given by a --host. They need a network between them."""
    vram: Size | None = None
    """Memory needed on each GPU, such as 20GiB. A smaller one is refused before the start."""
    disk: Size | None = None
    """Free disk needed on the box, such as 30GiB."""
    processes: int | None = field(default=None, metadata={"ge": 1, "le": 1024})
    """Worker processes of a box; by default one for each GPU."""


@dataclass(frozen=True)
class Slurm:
    partition: SlurmWord | None = None
    """The partition; by default the cluster's."""
    account: SlurmWord | None = None
    """The account that the time is charged to."""
    qos: SlurmWord | None = None
    """The quality of service."""
    constraint: SlurmWord | None = None
    """Features that the node must have, such as a100&nvlink."""
    reservation: SlurmWord | None = None
    """A reservation to run in."""
    nodelist: SlurmWord | None = None
    """Nodes to run on."""
    exclude: SlurmWord | None = None
    """Nodes not to run on."""
    gpu_type: SlurmWord | None = None
    """The kind of GPU as the cluster names it, such as a100."""
    mem: SlurmMemory | None = None
    """Host memory of the job, such as 64G; by default the cluster's."""
    mem_per_gpu: SlurmMemory | None = None
    """The same for each GPU."""
    cpus_per_gpu: int | None = field(default=None, metadata={"ge": 1, "le": 1024})
    """Processors for each GPU."""
    cpus_per_task: int | None = field(default=None, metadata={"ge": 1, "le": 1024})
    """Processors of the job."""
    container: SlurmWord | None = None
    """An image to run in, where the cluster has pyxis, such as nvcr.io#nvidia/pytorch:25.01-py3. environment.interpreter is then the
    Python in it."""
    requeue: bool = False
    """Go on in the same run when the time limit is over, a node has failed or the job was preempted."""


@dataclass(frozen=True)
class Checkpoints:
    pattern: Pattern | None = None
    """Which files or folders are checkpoints, such as out/step_*: a path below one of outputs; * and ? stand for characters of a
    name, ** for any path. Known without it: checkpoint-N, *.ckpt, folders such as step-500, files of weights."""
    complete_when: CompleteWhen | None = None
    """What shows that one is complete: the name of a file that is written last, in the folder or beside the file, such as DONE or
    {name}.ok; or a time without any change, such as 30s (by default 10s)."""


@dataclass(frozen=True)
class Tolerances:
    cpu: float | None = field(default=None, metadata=_TOLERANCE)
    """Largest difference of a logit on the CPU."""
    mps: float | None = field(default=None, metadata=_TOLERANCE)
    """Largest difference of a logit on Metal."""
    cuda: float | None = field(default=None, metadata=_TOLERANCE)
    """Largest difference of a logit on CUDA."""


@dataclass(frozen=True)
class SmokeTest:
    enabled: bool = True
    """Whether `submit --follow` ends with a smoke test."""
    tolerance: Tolerances = Tolerances()
    """Largest allowed difference from what the box predicted, by device. Defaults depend on dtype and device."""


@dataclass(frozen=True)
class Job:
    """A job file, checked. ``settings`` is complete: the recipe's defaults are filled in."""

    name: Name
    """Run ids begin with it."""
    recipe: str | None = None
    """A built-in training script, or a Python file of your own such as ./my_recipe.py. Either this or command."""
    command: Command | None = None
    """Your own program as a list of words, which no shell reads; or a script of several lines, which bash -ec runs. {gpus} and
    {processes} are replaced by their numbers."""
    settings: Settings = field(default_factory=dict)
    """The recipe's settings."""
    code: Code = Code()
    """Where your code is, and which files of it are sent."""
    data: tuple[str | DataFrom, ...] = ()
    """Files and folders that are sent once and shared by later runs: paths relative to code.path. One from elsewhere (/mnt/corpus,
    ../corpus) appears under its last name (corpus), or where {path: /mnt/corpus, as: data/corpus} says. run:ID/path is what an earlier run
    wrote to its outputs: taken on the box, or brought there."""
    environment: Environment = Environment()
    """Python, packages and variables on the box."""
    hub: Hub = Hub()
    """The Hugging Face hub."""
    resources: Resources = Resources()
    """GPUs, memory and disk that the job needs."""
    outputs: tuple[Output, ...] | None = None
    """What comes home: names in the working directory. By default all that a recipe writes."""
    checkpoints: Checkpoints | None = None
    """How the checkpoints of your own program are recognised while it runs, where gpurun does not know their form."""
    progress: tuple[str, ...] | None = None
    """How steps are read from the log of your own program: trainer, nanogpt, lightning, tqdm, a regular expression with groups such as
    (?P<step>\\d+), (?P<total>\\d+) and (?P<loss>\\S+), or a list of these; off; by default auto, the forms that gpurun knows."""
    smoke_test: SmokeTest = SmokeTest()
    """The test of the fetched model on this machine."""
    price_per_hour: float | None = field(default=None, metadata={"ge": 0, "le": 100_000})
    """What the box costs an hour, for `status` and `list`; of several boxes, what each costs."""
    time_limit: Duration | None = None
    """The run is ended after this long, such as 12h."""
    cost_limit: float | None = field(default=None, metadata={"gt": 0, "le": 10_000_000})
    """The run is ended when it has cost this much at price_per_hour."""
    secrets: tuple[Variable, ...] = ()
    """Names of environment variables of this machine that the payload gets too, such as WANDB_API_KEY. They never touch the box's disk."""
    sweep: Axes | None = None
    """One job file, many runs: every combination of the values given for fields such as settings.seed. Runs that differ in
    the seed alone are one experiment."""
    keep_finished: int | None = field(default=None, metadata={"ge": 1, "le": 1000})
    """How many runs keep their checkpoints and models on the box, of those of one submission that differ in the seed alone: the
    first to finish. Of later ones they are removed as these finish; logs, metrics and reports stay."""
    queue: bool = False
    """Wait for free GPUs instead of refusing to start."""
    slurm: Slurm | None = None
    """What Slurm is told besides resources and time_limit, where the job is submitted with --engine slurm."""

    folder: Path = field(default=Path("."), init=False)
    """``code.path`` as an absolute path on this machine: the root of code and data. Like the two below no field of a job file: ``at``."""
    file: Path | None = field(default=None, init=False)
    """The job file; None for a job that has none."""
    overrides: tuple[str, ...] | None = field(default=None, init=False)
    """What ``--set`` gave when the file was read, and of a sweep this run's own values. None for a job that was not read from ``file``."""

    @property
    def data_places(self) -> dict[str, Path]:
        """Where each of ``data`` appears in the working directory → where it is on this machine; without what runs wrote."""
        return dict(data_place(entry, self.folder) for entry in self._data if run_output(_path_in(entry)) is None)

    @property
    def run_outputs(self) -> dict[str, RunOutput]:
        """Where what other runs wrote (``data: [run:ID/path]``) appears in the working directory → what it is."""
        found = {}
        for entry in self._data:
            if output := run_output(_path_in(entry)):
                found[os.path.normpath(entry[1]) if isinstance(entry, tuple) else os.path.basename(output.path)] = (
                    output
                )
        return found

    @property
    def _data(self) -> list[str | tuple[str, str]]:
        return [entry if isinstance(entry, str) else (entry.path, entry.as_) for entry in self.data]

    @property
    def pushes_code(self) -> bool:
        """Whether the user's code is sent. A built-in recipe is gpurun's own; for it only data is sent."""
        return self.command is not None or self.has_own_recipe

    @property
    def has_own_recipe(self) -> bool:
        """Whether the recipe is a Python file of the user's, ``recipe: ./my_recipe.py``."""
        return self.recipe is not None and is_own(self.recipe)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed and probably a mistake, one sentence each."""
        found = []
        if self.command is not None and not self.outputs:
            found.append("outputs: is empty, so nothing comes home but the log")
        for name, value in self.environment.variables.items():
            if EXPANDED.search(value):
                found.append(f"environment.variables.{name}: no shell reads it, so '$' stays as it is")
        shell = (self.command or ("",))[0].rpartition("/")[2] in ("sh", "bash", "zsh", "dash")
        for word in self.command or ():
            if EXPANDED.search(word) and not shell and len(word.split()) == 1:
                found.append(f"command: {flow(word)} stays as it is, no shell reads it; [bash, -c, …] has one")
        for name in self.environment.variables:
            if SECRET_NAME.search(name):
                found.append(
                    f"environment.variables: {name} looks like a secret: its value is kept and sent in the job file. Export it here and"
                    f" write secrets: [{name}]"
                )
        return tuple(found)

    @property
    def summary(self) -> str:
        """The job on one line: ``recipe classify, 1 GPU, 2 data folders, …``."""
        what = f"recipe {self.recipe}" if self.recipe else f"command {(self.command or ('?',))[0]}"
        gpus = self.resources.gpus
        parts = [what, "all GPUs" if gpus == "all" else f"{gpus} GPU{'s' * (gpus != 1)}"]
        parts += [f"{self.resources.boxes} boxes"] if self.resources.boxes > 1 else []
        parts += [f"data {', '.join([*self.data_places, *map(str, self.run_outputs.values())])}"] if self.data else []
        parts += [f"model {', '.join(self.hub.models)}"] if self.hub.models else []
        parts += [f"at most {self.time_limit / 3600:g} h"] if self.time_limit else []
        paid = self.seconds_paid_for
        parts += [f"at most {self.cost_limit:g} in money ({paid / 3600:.3g} h)"] if paid else []
        return ", ".join(parts)

    @property
    def seconds_paid_for(self) -> float | None:
        """How long ``cost_limit`` lasts at ``price_per_hour``; None without both, or where the box costs nothing."""
        if self.cost_limit is None or not self.price_per_hour:
            return None
        return 3600 * self.cost_limit / (self.price_per_hour * self.resources.boxes)

    def setting(self, *keys: str) -> Any:
        """One of ``settings`` by its path, ``("evaluation", "metric")``; None where a part of the path is not there."""
        value: Any = self.settings
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def wire(self) -> dict[str, Any]:
        """The job as JSON, for job.json on the box and the local record: no secrets, no paths of this machine.

        Keys are those of a job file, each of them is there. Sizes and durations are text with their unit.
        """
        found = {each.name: _as_json(getattr(self, each.name)) for each in dataclasses.fields(self) if each.init}
        sizes = {
            name: f"{size}B"
            for name, size in found["resources"].items()
            if name in ("vram", "disk") and size is not None
        }
        found["resources"] |= sizes
        found["time_limit"] = None if self.time_limit is None else f"{self.time_limit!r}s"
        return found

    def at(self, folder: Path, file: Path | None = None, overrides: tuple[str, ...] | None = None) -> Job:
        """The same job with its folder on this machine, and where it was read from. ``dataclasses.replace`` forgets these three."""
        job = copy.copy(self)
        for name, value in (("folder", folder), ("file", file), ("overrides", overrides)):
            object.__setattr__(job, name, value)  # frozen for everybody else
        return job


def _path_in(entry: str | tuple[str, str]) -> str:
    return entry if isinstance(entry, str) else entry[0]


def _as_json(value: object) -> Any:
    """A part of a job as its JSON: dataclasses as objects whose names are the file's, tuples as lists."""
    if dataclasses.is_dataclass(value):
        own = dataclasses.fields(value)
        return {each.metadata.get("alias", each.name): _as_json(getattr(value, each.name)) for each in own}
    if isinstance(value, dict):
        return {key: _as_json(each) for key, each in value.items()}
    return [_as_json(each) for each in value] if isinstance(value, list | tuple) else value
