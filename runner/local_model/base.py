"""Which base model a model needs, and whether both fit into this machine's memory."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from runner.domain.errors import SmokeTestFailed
from runner.domain.job import Job
from runner.domain.progress import Reporter
from runner.local_model.model_folder import ModelFolder
from runner.local_model.weights import read_header

ON_THE_HUB = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+)?")
COMMIT = re.compile(r"[0-9a-f]{40}")
SHARE_OF_MEMORY = 0.7  # of this machine, for weights: activations, libraries and other programs need the rest
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class BaseModel:
    """A model on the hub at a revision, or a folder of this machine."""

    id: str
    revision: str | None
    folder: Path | None


def required_base(model: ModelFolder, job: Job | None) -> BaseModel | None:
    """The base model of an adapter; None for a model that needs none.

    Raises SmokeTestFailed when the folder names another base than the job did: a box must not choose a model that this machine
    downloads and loads.
    """
    if not model.adapter:
        return None
    named = model.base
    if not named:
        raise SmokeTestFailed(f"{model.folder} is an adapter and does not name its base model")
    allowed = (_models_of(job) if job else []) or [named]
    strangers = [name for name in (named, model.adapter_base) if name and not any(_means(name, own) for own in allowed)]
    if strangers:
        raise SmokeTestFailed(
            f"{model.folder} wants {strangers[0][:200]!a} as its base model, and the job named {' or '.join(allowed)}",
            meaning="Nothing was downloaded or loaded.",
            hint="If you did not mean that, do not trust the box it came from.",
        )
    named = next(own for own in allowed if _means(named, own))
    local = _local(named, job)
    if local is not None:
        return BaseModel(named, None, local)
    commit = model.base_revision if COMMIT.fullmatch(model.base_revision or "") else None
    return _on_the_hub(model, named, commit or (job.setting("revision") if job else None))


def trained_from(model: ModelFolder, job: Job) -> BaseModel | None:
    """The model that the training of ``model`` began with, as the job names it; None for one that was trained from nothing.

    Raises SmokeTestFailed for a folder that is not on this machine.
    """
    named = job.setting("model")
    if not isinstance(named, str):
        return None
    local = _local(named, job)
    return BaseModel(named, None, local) if local else _on_the_hub(model, named, job.setting("revision"))


def base_of_job(job: Job) -> BaseModel | None:
    """The model that a job trains, wherever its outputs lie: a folder of this machine, or one of the hub; None for another, or for a
    model that is trained from nothing."""
    named = job.setting("model")
    if not isinstance(named, str):
        return None
    local = _local(named, job)
    if local is None and not ON_THE_HUB.fullmatch(named):
        return None
    return BaseModel(named, None if local else job.setting("revision"), local)


def _on_the_hub(model: ModelFolder, named: str, revision: str | None) -> BaseModel:
    """The base as a model of the hub. Raises SmokeTestFailed where it was a folder: a repository of that name is somebody else's."""
    if model.base_is_folder or not ON_THE_HUB.fullmatch(named):
        raise SmokeTestFailed(
            f"the base model {named[:200]!a} of {model.folder} is not on this machine",
            meaning="It was a folder where the model was trained. Nothing was downloaded or loaded.",
            hint="Repeat the command in the folder that it is relative to.",
        )
    return BaseModel(named, revision, None)


def _means(name: str, own: str) -> bool:
    """Whether ``name``, which a model's folder gives its base, means ``own``, which the job names: the same, or its place on the box.

    What is loaded is the job's own, whatever that place was.
    """
    kept = f"/models--{own.replace('/', '--')}/" in name or name.endswith("/" + own.removeprefix("./"))
    plain, mine = name.removeprefix("./"), own.removeprefix("./")
    folder = name.startswith("./") and mine.endswith("/" + plain)  # an absolute path is not written into a model
    return plain == mine or folder or (name.startswith("/") and kept)


def _models_of(job: Job) -> list[str]:
    """The models that a job may train on: its recipe's, or for a program of the user's own those it declares."""
    own = job.setting("model")
    return [own] if isinstance(own, str) else list(job.hub.models)


def _local(named: str, job: Job | None) -> Path | None:
    """The folder of that name on this machine, relative to the folder of the job's code; None when no model is there."""
    folder = Path(job.folder if job else ".", os.path.expanduser(named)).absolute()
    return folder if (folder / "config.json").is_file() else None


def choose_dtype(model: ModelFolder, base: Path | None, report: Reporter, *, elsewhere: str) -> str:
    """float32, so that the device differs and not the rounding; where that needs too much memory the model's own dtype, with a warning.

    Raises SmokeTestFailed when even the model's own dtype does not fit; ``elsewhere`` is
    then the hint.
    """
    numbers = model.inspected.elements + (_elements(base) if base else 0)
    available = SHARE_OF_MEMORY * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    narrow = model.dtype if model.dtype != "float32" else "bfloat16"
    for dtype in ("float32", narrow):
        if numbers * BYTES[dtype] <= available:
            if dtype != "float32":
                report.warn(f"in float32 it would need {numbers * 4 / 1e9:.0f} GB: loaded in {dtype}, which is coarser")
            return dtype
    raise SmokeTestFailed(
        f"{model.folder} needs {numbers * BYTES[narrow] / 1e9:.0f} GB for its weights, "
        f"and this machine has {available / 1e9:.0f} GB for them",
        meaning="Nothing was loaded.",
        hint=elsewhere,
    )


def _elements(folder: Path) -> int:
    """Numbers in the weights of a base model."""
    try:
        return sum(tensor.elements for path in folder.glob("*.safetensors") for tensor in read_header(path))
    except ValueError as error:
        raise SmokeTestFailed(f"the base model in {folder} cannot be read: {error}") from None
