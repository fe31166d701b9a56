"""What a TARGET on the command line stands for: a model that is used on this machine, and where it and its base lie here.

legal-20260102-142030-7f3a    a run's model (an id, its unique beginning or ending, or a job's name)
legal:step-000100             one of its checkpoints that was fetched; legal:best is its model, legal:latest the newest of them
mine:results/checkpoint-500   of a program of the user's own by its path, where it is a model as transformers or peft saves it
./models/best                 a folder: gpurun's, an adapter as peft saves it, a model as transformers saves it
Qwen/Qwen2.5-0.5B@v2          a model of the Hub; @ a branch, tag or commit
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runner import store
from runner.domain.errors import ArtifactError, SmokeTestFailed, UnknownRun, UserError
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.hub import fetch_model
from runner.local_model.base import ON_THE_HUB
from runner.local_model.model_folder import ModelFolder, find_models, is_model, read_model_folder
from runner.workflow.checkpoints import fetched, listed_here
from runner.workflow.inference.base_model import bring_base

BEST, LATEST = "best", "latest"
FORMS = "TARGET is a fetched run, RUN:CHECKPOINT, a folder, or a model of the Hub such as Qwen/Qwen2.5-0.5B."
CHECKPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,100}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}){0,9}")


@dataclass(frozen=True)
class TargetHere:
    """A model on this machine: ``named`` is what was typed, ``run`` the run that it came from where there is a record of it. ``blobs`` is
    where the links in a folder of the Hub's cache lead."""

    named: str
    folder: Path
    run: Run | None = None
    blobs: Path | None = None


@dataclass(frozen=True)
class Ready:
    """A target that was inspected, with the folder of its base model; None where it needs none."""

    target: TargetHere
    model: ModelFolder
    base: Path | None


@dataclass(frozen=True)
class Meant:
    """What was typed, understood: a folder of this machine, a ``checkpoint`` of a run (``best`` is its model), or a model of the Hub at a
    ``revision``."""

    named: str
    folder: Path | None = None
    run: Run | None = None
    checkpoint: str = BEST
    repository: str | None = None
    revision: str | None = None


def meaning_of(named: str) -> Meant:
    """Which of them was typed: a folder, a run, ``RUN:CHECKPOINT``, or ``org/model``. Nothing is contacted.

    Raises UserError and UnknownRun.
    """
    folder = Path(named).expanduser()
    if folder.is_dir() and named not in store.run_ids():
        inside = _only_model(folder.absolute(), named)
        return Meant(named, inside, run_of(inside))
    if named.startswith((".", "/", "~")) or folder.is_file():
        raise UserError(f"there is no folder {named}", hint=FORMS)
    name, colon, checkpoint = named.partition(":")
    if colon and not CHECKPOINT.fullmatch(checkpoint):
        raise UserError(f"{named}: after the colon stands the name of a checkpoint, such as {name}:step-000100")
    try:
        return Meant(named, None, store.find_started(name), checkpoint or BEST)
    except UnknownRun as error:
        model, _, revision = named.partition("@")
        if colon or "/" not in model or not ON_THE_HUB.fullmatch(model):
            raise UnknownRun(error.message, hint=FORMS) from None
        if Path(model).parts[0] in os.listdir("."):  # a repository of that name would be somebody else's
            raise UserError(
                f"there is no folder {model}", meaning="It was not looked for on the Hub.", hint=FORMS
            ) from None
        return Meant(named, repository=model, revision=revision or None)


def path_in_outputs(meant: Meant) -> str:
    """Where the model of a run, or its checkpoint, lies in the run's outputs. Raises UserError for ``latest``, which only the box knows."""
    if meant.checkpoint == LATEST:
        raise UserError(
            f"{meant.named}: which checkpoint is the latest is known here only of fetched ones",
            hint="Name it as gpurun checkpoints lists it.",
        )
    if meant.checkpoint == BEST:
        return "models/best"
    return meant.checkpoint if "/" in meant.checkpoint else f"checkpoints/{meant.checkpoint}"


def find_target(named: str, report: Reporter) -> TargetHere:
    """The model that ``named`` means, on this machine; one of the Hub is brought here.

    Raises as ``meaning_of`` and ``fetch_model`` do, and ArtifactError for what was not fetched.
    """
    return bring(meaning_of(named), report)


def bring(meant: Meant, report: Reporter, *, hint: str = "") -> TargetHere:
    """The same for a model whose name was understood before; ``hint`` is for what was not fetched."""
    if meant.repository is None:
        return _on_this_machine(meant, hint)
    with report.stage(f"model {meant.named}", "bytes") as stage:
        folder = fetch_model(meant.repository, meant.revision, stage)
    return TargetHere(meant.named, folder, blobs=folder.parent.parent / "blobs")


def trained_target(named: str | None) -> TargetHere:
    """The same for what is exported and published: a run (without a name the newest one), its checkpoint, or a folder, and no model
    of the Hub."""
    meant = meaning_of(store.find_started(None).run_id if named is None else named)
    if meant.repository is not None:
        raise UserError(
            f"there is no run and no folder {named}",
            meaning="A model of the Hub is neither exported nor published.",
            hint="TARGET is a fetched run, RUN:CHECKPOINT, or the folder of a model.",
        )
    return _on_this_machine(meant)


def _on_this_machine(meant: Meant, hint: str = "") -> TargetHere:
    named, run = meant.named, meant.run
    if run is None or meant.folder:
        assert meant.folder
        return TargetHere(named, meant.folder, run)
    unnamed = ":" not in named and meant.checkpoint in (BEST, LATEST)
    if unnamed and run.fetched_into and not _is_among(meant.checkpoint, models_here(run)):
        return TargetHere(named, _only_model(run.outputs_here, named), run)  # of a program of the user's own
    return TargetHere(named, checkpoint_here(run, meant.checkpoint, hint=hint), run)


def checkpoint_here(run: Run, name: str, *, hint: str = "") -> Path:
    """The folder of a checkpoint that was fetched: ``latest`` is the newest one, or the finished model where there is no other, ``best``
    the finished model. Raises ArtifactError naming those that were."""
    there = models_here(run)
    trained = [each for each in there if each != BEST] or list(there)
    wanted = trained[-1] if name == LATEST and trained else name
    if wanted not in there:
        bring = f"Bring it home with gpurun fetch {run.run_id}; gpurun checkpoints {run.run_id} lists what the box has."
        raise ArtifactError(
            f"{run.run_id} has no checkpoint {name} on this machine; here are: {', '.join(there) or 'none'}",
            hint=hint or bring,
        )
    return there[wanted]


def models_here(run: Run) -> dict[str, Path]:
    """The models of a run that were fetched, by name, the oldest first: checkpoints and the finished one; of a program of the user's own
    the checkpoints that are folders with a model."""
    found = fetched(run)
    for name, kept in sorted(listed_here(run).items(), key=lambda each: (each[1].at or 0.0, each[1].step or 0)):
        folder = run.outputs_here / kept.path
        if name not in found and is_model(folder):
            found[name] = folder
    return found


def is_here(meant: Meant) -> bool:
    """Whether what is meant of a run is on this machine. Of a program of the user's own it is nowhere else: gpurun cannot ask its model on
    the box."""
    run = meant.run
    return bool(run and ((run.job.command and run.fetched_into) or _is_among(meant.checkpoint, models_here(run))))


def _is_among(name: str, there: Mapping[str, Path]) -> bool:
    return bool(there) if name == LATEST else name in there


def make_ready(target: TargetHere, report: Reporter, *, wants_base: bool = False) -> Ready:
    """Inspects the folder, and brings the base model of an adapter here; with ``wants_base`` that of a whole model of a run too, where
    it can be had. Raises SmokeTestFailed, HubAccessDenied and HubUnreachable."""
    with report.stage(f"inspect {target.folder.name}"):
        model = read_model_folder(target.folder, target.blobs)
    base = bring_base(model, target.run, report)
    trains_from = target.run.job.setting("model") if target.run else None
    if wants_base and base is None and isinstance(trains_from, str) and model.kind == "causal_lm":
        try:
            base = bring_base(model, target.run, report, ask_base=True)
        except (SmokeTestFailed, UserError) as error:
            report.warn(f"without the base of {target.named}: {error.message}")
    return Ready(target, model, base)


def _only_model(folder: Path, named: str) -> Path:
    """The one model in a folder. Raises SmokeTestFailed for none, UserError for several."""
    found = find_models(folder)
    if len(found) > 1:
        shown = ", ".join(os.path.relpath(each, folder) for each in found[:5])
        raise UserError(f"there are {len(found)} models below {named}: {shown}", hint="Name one of them.")
    return found[0]


def run_of(folder: Path) -> Run | None:
    """The run whose fetched outputs contain this folder."""
    runs, _ = store.load_all()
    inside = [folder, *folder.parents]
    return next((run for run in reversed(runs) if run.fetched_into and Path(run.fetched_into) in inside), None)
