"""Checkpoints: folders from which training resumes as if it had never stopped.

    checkpoints/step-000500/
      model.safetensors        what is trained (with LoRA: the adapters and the head; otherwise every parameter and buffer)
      optimizer.safetensors    "exp_avg/<parameter>" and so on; param groups follow from the settings
      rng-<rank>.safetensors   every rank's random number generators
      state.json               step, epoch, position in the data, best metric so far …
      manifest.json            size and sha256 of each; written last, before the folder is renamed into place

No pickles. The newest checkpoint is checked before older ones are deleted, so that there is always one to go back to. How they are
written: ``saving.py``.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from remote_payload.train.distributed import World
from remote_payload.train.errors import InputError
from remote_payload.train.files import write_json
from remote_payload.train.folders import MANIFEST, read_manifest
from remote_payload.train.state import rng
from remote_payload.train.state.best import ranked
from remote_payload.train.state.optimizer import load_named_state, placed_like
from remote_payload.train.state.progress import Scored


@dataclass(frozen=True)
class Found:
    """A complete checkpoint: its folder, its step, its metrics if it was evaluated, whether training can resume from it."""

    path: Path
    step: int
    metrics: dict[str, float]
    resumable: bool = True


def checkpoints_in(folder: Path, hashes: bool = False) -> list[Found]:
    """The complete checkpoints, oldest first; incomplete ones are left out."""
    found = []
    for path in folder.glob("step-*"):
        manifest = read_manifest(path, hashes)
        if manifest is not None:
            resumable = any(file["path"] == "optimizer.safetensors" for file in manifest["files"])
            found.append(Found(path, int(manifest["step"]), manifest.get("metrics") or {}, resumable))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def discard_leftovers(folder: Path) -> None:
    """Removes the remains of an interrupted save or deletion; a checkpoint that was being replaced gets its name back."""
    for path in folder.glob(".old-*"):
        final = path.with_name(path.name.removeprefix(".old-"))
        if not final.exists() and read_manifest(path) is not None:
            path.rename(final)
    for path in [*folder.glob(".tmp-*"), *folder.glob(".old-*")]:
        shutil.rmtree(path, ignore_errors=True)


def discard_later(folder: Path, step: int) -> list[Path]:
    """Removes the checkpoints of later steps than ``step``, incomplete ones too. Returns their paths."""
    names = {path: path.name.removeprefix("step-") for path in folder.glob("step-*")}
    later = [path for path, number in sorted(names.items()) if number.isdigit() and int(number) > step]
    for path in later:
        _remove(path)
    return later


def _remove(path: Path) -> None:
    doomed = path.with_name(f".old-{path.name}")  # a half-deleted folder must not keep a checkpoint's name
    (path / MANIFEST).unlink(missing_ok=True)  # nor be taken for one that was being replaced
    path.rename(doomed)
    shutil.rmtree(doomed)


def find_checkpoint(request: str, folder: Path) -> Path | None:
    """The checkpoint that is meant by ``auto`` (the latest; None when there is none), a name or a path.

    Raises InputError for anything else, naming the checkpoints that exist.
    """
    there = checkpoints_in(folder)
    if request == "auto":
        newest_first = (c.path for c in there[::-1] if c.resumable)
        return next((path for path in newest_first if read_manifest(path, hashes=True) is not None), None)
    if request == "latest" and there:
        return there[-1].path
    for candidate in (folder / request, Path(request)):
        if (candidate / "state.json").is_file() and read_manifest(candidate, hashes=True) is not None:
            if not (candidate / "optimizer.safetensors").is_file():
                names = ", ".join(checkpoint.path.name for checkpoint in there if checkpoint.resumable) or "none"
                raise InputError(f"resume: {request} kept only its weights; to be resumed from: {names}")
            return candidate
    torn = next((c for c in (folder / request, Path(request)) if c.is_dir() and request), None)
    names = ", ".join(checkpoint.path.name for checkpoint in there) or "none"
    problem = f"{torn} is not complete" if torn else f"there is no checkpoint {request}"
    if not there:
        raise InputError(
            f"resume: {problem}, and no other in {folder}. To resume another run: gpurun resume RUN --checkpoint {request}"
        )
    raise InputError(f"resume: {problem}; checkpoints in {folder}: {names}")


def load_checkpoint(path: Path, world: World, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Puts model, optimizer and generators back as they were saved; returns the state. Every rank must call it.

    Raises InputError when the checkpoint is of another model.
    """
    load_weights(path, model)
    load_named_state(model, optimizer, load_file(path / "optimizer.safetensors"))
    generator = path / f"rng-{world.rank}.safetensors"
    if generator.is_file():  # more ranks than before: the new ones keep the seed they started from
        rng.restore(load_file(generator))
    state: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
    return state


@torch.no_grad()
def load_weights(path: Path, model: nn.Module) -> None:
    """Copies a checkpoint's ``model.safetensors`` into the model. Raises InputError when names or shapes differ."""
    saved, own = load_file(path / "model.safetensors"), trained(model)
    if set(saved) != set(own):
        some = ", ".join(sorted(set(saved) ^ set(own))[:3])
        raise InputError(
            f"{path.name} is a checkpoint of another model or other LoRA settings: {some} … is not in both"
        )
    for name, tensor in saved.items():
        if tensor.shape != own[name].shape:
            raise InputError(f"{path.name}: {name} is {list(tensor.shape)}, the model has {list(own[name].shape)}")
        own[name].copy_(placed_like(tensor, own[name]))


def trained(model: nn.Module) -> dict[str, Tensor]:
    """What training changes, and ``model.safetensors`` holds: trainable parameters, and every buffer that is saved unless part of
    the model is frozen. These are the model's own tensors, sharded where the model is.
    """
    parameters = dict(model.named_parameters())  # each tied weight once, under its first name
    trainable = {name: p for name, p in parameters.items() if p.requires_grad}
    if len(trainable) < len(parameters):
        return trainable
    persistent = model.state_dict(keep_vars=True)
    return {**trainable, **{name: buffer for name, buffer in model.named_buffers() if name in persistent}}


def strip_checkpoints(folder: Path, resumable: int | None, written: Path | None = None) -> list[Path]:
    """Leaves only the weights in all but the latest ``resumable``; nothing unless the newest is complete. Returns the changed ones.

    The newest is read and hashed, unless this process has just ``written`` it. The manifest is written before files are removed:
    after an interruption here the checkpoint is complete, with a file that the manifest does not list.
    """
    there = checkpoints_in(folder)
    if resumable is None or len(there) <= resumable or not _is_complete(there[-1].path, written):
        return []
    changed = []
    for checkpoint in there[:-resumable]:
        manifest = read_manifest(checkpoint.path) or {}
        spare = [file for file in manifest.get("files", []) if _only_for_resuming(file["path"])]
        if spare:
            kept = [file for file in manifest["files"] if file not in spare]
            write_json(checkpoint.path / MANIFEST, {**manifest, "files": kept})
            changed.append(checkpoint.path)
        for path in checkpoint.path.glob("*.safetensors"):
            if _only_for_resuming(path.name):
                path.unlink()
    return changed


def _is_complete(path: Path, written: Path | None) -> bool:
    return read_manifest(path, hashes=path != written) is not None


def _only_for_resuming(name: str) -> bool:
    return name == "optimizer.safetensors" or (name.startswith("rng-") and name.endswith(".safetensors"))


def prune_checkpoints(
    folder: Path, keep: int | None, metric: str, higher_is_better: bool, best_step: int | None = None,
    written: Path | None = None,
) -> list[Path]:  # fmt: skip
    """Deletes all but the latest ``keep`` and the best; nothing unless the newest is complete. Returns their paths.

    The newest is read and hashed, unless this process has just ``written`` it, which is when it was hashed.
    The best is the one of ``best_step``; where that could not be saved, the best of those that are there, by ``metric``. As in
    choosing a model, step 0 does not count: it is not a result of training.
    """
    there = checkpoints_in(folder)
    if keep is None or len(there) <= keep or not _is_complete(there[-1].path, written):
        return []
    scored: list[Scored] = [{"step": c.step, "metrics": c.metrics} for c in there]
    order = ranked(scored, metric, higher_is_better)
    steps = {c.step for c in there}
    best = best_step if best_step in steps else next((entry["step"] for entry in order), None)
    gone = [c.path for c in there[:-keep] if c.step != best]
    for path in gone:
        _remove(path)
    return gone
