"""``gpurun smoke-test``: what was fetched is inspected, loaded in a process of its own, asked, and compared with the box."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runner import store
from runner.domain.errors import ArtifactError, SmokeTestFailed, UserError
from runner.domain.progress import Reporter, Stage
from runner.domain.run import Run
from runner.hub import fetch_model
from runner.local_model.base import BaseModel, choose_dtype, required_base
from runner.local_model.compare import judge, limit
from runner.local_model.model_folder import (
    EXPECTED,
    INPUTS,
    WEIGHTS,
    ModelFolder,
    find_models,
    not_loadable,
    read_model_folder,
)
from runner.local_model.process import run_worker
from runner.local_model.report import SmokeReport, count_labels


def smoke_test(
    target: Path, report: Reporter, *, run: Run | None = None, device: str = "auto", inputs: Path | None = None
) -> list[SmokeReport]:
    """Tests every model in a fetched run or a plain folder; ``run`` is its record where there is one.

    ``inputs`` (JSON Lines) replaces the box's inputs, and then nothing is compared. Raises SmokeTestFailed for what does not
    load; a model that loads and says something else is in its report (``raise_for``).
    """
    if inputs is not None and not inputs.is_file():
        raise UserError(f"there is no file {inputs}")
    if target.is_file() and target.suffix in WEIGHTS:
        raise not_loadable([target])
    if not target.is_dir():
        raise ArtifactError(f"there is no folder {target}", hint="Bring a run home first: gpurun fetch.")
    return [_test(folder, run, device, inputs, report) for folder in find_models(target)]


def raise_for(reports: list[SmokeReport]) -> None:
    """Raises SmokeTestFailed when a model says something else here than on the box."""
    said = [
        f"{report.folder} on {report.device}: {problem}"
        for report in reports
        if report.comparison
        for problem in report.comparison.problems
    ]
    if said:
        raise SmokeTestFailed(
            "the model does not say here what it said on the box\n" + "\n".join(said),
            meaning="Either the files here are not the model that was trained, or this device computes it wrongly.",
            hint="Repeat with --device cpu; if that differs too, fetch again (gpurun fetch) and repeat.",
        )


def target_of(named: str | None) -> tuple[Path, Run | None]:
    """The folder that ``[RUN or DIR]`` means, and the run it came from where this machine knows it.

    Raises UnknownRun, or ArtifactError for a run that was not fetched.
    """
    if named is not None and named not in store.run_ids() and (os.path.exists(named) or os.sep in named):
        folder = Path(named).expanduser().absolute()
        return folder, _run_of(folder)
    run = store.find_started(named)
    if not run.fetched_into:
        raise ArtifactError(f"nothing of {run.run_id} was fetched yet", hint=f"Type gpurun fetch {run.run_id} first.")
    return Path(run.fetched_into), run


def _run_of(folder: Path) -> Run | None:
    """The run whose fetched outputs a folder is part of."""
    runs, _ = store.load_all()
    inside = [folder, *folder.parents]
    return next((run for run in reversed(runs) if run.fetched_into and Path(run.fetched_into) in inside), None)


def _test(folder: Path, run: Run | None, device: str, inputs: Path | None, report: Reporter) -> SmokeReport:
    with report.stage(f"inspect {folder.name}"):
        model = read_model_folder(folder)
    if model.inspected.pickles:
        report.warn(f"never opened, since they are pickles: {', '.join(model.inspected.pickles[:5])}")
    base = _bring_base(model, run, report)
    dtype = choose_dtype(model, base, report)
    with report.stage(f"load and ask {folder.name}") as stage:
        answered = run_worker(_request(model, base, dtype, device, inputs), lambda said: _show(stage, said))
    return _report(model, answered, dtype, run)


def _bring_base(model: ModelFolder, run: Run | None, report: Reporter) -> Path | None:
    """Where the base model of an adapter lies here: the job's own folder, or the hub's, downloaded with the user's token."""
    base: BaseModel | None = required_base(model, run.job if run else None)
    if base is None:
        return None
    if base.folder is not None:
        return base.folder
    with report.stage(f"base model {base.id}", "bytes") as stage:
        return fetch_model(base.id, base.revision, stage)


def _request(model: ModelFolder, base: Path | None, dtype: str, device: str, inputs: Path | None) -> dict[str, Any]:
    compares = model.reference is not None and inputs is None
    asked = inputs.absolute() if inputs else model.folder.absolute() / INPUTS if compares else None
    return {
        "folder": str(model.folder.absolute()),
        "described": model.described,
        "kind": model.kind,
        "adapter": model.adapter,
        "base": str(base) if base else None,
        "device": device,
        "dtype": dtype,
        "labels": list(model.labels),
        "max_length": model.max_length,
        "inputs": str(asked) if asked else None,
        "expected": str(model.folder.absolute() / EXPECTED) if compares else None,
    }


def _show(stage: Stage, said: dict[str, Any]) -> None:
    stage.update(done=said.get("done"), total=said.get("total"), note=said.get("note"))


def _report(model: ModelFolder, answered: dict[str, Any], dtype: str, run: Run | None) -> SmokeReport:
    measured, device = answered["comparison"], answered["device"]
    comparison = None
    if measured is not None and model.reference is not None:
        own = _own_tolerance(run, device)
        comparison = judge(measured, limit(model.reference["dtype"], dtype, device, measured["scale"], own))
    seconds = max(answered["seconds"], 1e-9)
    return SmokeReport(
        folder=model.folder,
        kind=model.kind,
        device=device,
        device_name=answered["device_name"],
        dtype=dtype,
        torch=answered["torch"],
        load_seconds=answered["load_seconds"],
        samples=answered["samples"],
        samples_per_second=answered["samples"] / seconds,
        tokens_per_second=answered["tokens"] / seconds if "tokens" in answered else None,
        peak_memory=answered["peak_memory"],
        counts=count_labels(answered["counts"], model.labels),
        texts=tuple(answered.get("texts", ())),
        comparison=comparison,
        not_opened=model.inspected.pickles,
    )


def _own_tolerance(run: Run | None, device: str) -> float | None:
    """``smoke_test.tolerance`` of the job, for this device."""
    given: dict[str, float | None] = asdict(run.job.smoke_test.tolerance) if run else {}
    return given.get(device)
