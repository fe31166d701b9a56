"""``gpurun smoke-test``: a fetched model is inspected, loaded in a process of its own, and compared with the box's predictions."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

from runner import store
from runner.domain.errors import ArtifactError, SmokeTestFailed, UserError
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.local_model.base import choose_dtype
from runner.local_model.compare import allowed_difference, compare
from runner.local_model.messages import SmokeRequest, SmokeResult
from runner.local_model.model_folder import (
    EXPECTED,
    INPUTS,
    WEIGHTS,
    ModelFolder,
    find_models,
    not_loadable,
    read_model_folder,
)
from runner.local_model.process import model_process, show
from runner.local_model.report import SmokeReport, count_labels
from runner.workflow.inference import smoke_note
from runner.workflow.inference.base_model import bring_base
from runner.workflow.inference.targets import run_of


def smoke_test(
    target: Path, report: Reporter, *, run: Run | None = None, device: str = "auto", inputs: Path | None = None
) -> list[SmokeReport]:
    """Tests every model in a fetched run or a plain folder; ``run`` is its record where there is one.

    ``inputs`` (JSON Lines) replaces the box's inputs, and then nothing is compared. Raises SmokeTestFailed for a model that does not
    load; one that loads and predicts something else has problems in its report (``raise_for``). A verdict on the run is noted.
    """
    if inputs is not None and not inputs.is_file():
        raise UserError(f"there is no file {inputs}")
    if target.is_file() and target.suffix in WEIGHTS:
        raise not_loadable([target])
    if not target.is_dir():
        raise ArtifactError(f"there is no folder {target}", hint="Bring a run home first: gpurun fetch.")
    to_note = run if inputs is None else None
    try:
        found = [test_model(folder, report, run=run, device=device, inputs=inputs) for folder in find_models(target)]
    except SmokeTestFailed as error:
        if to_note:
            smoke_note.note(to_note, [smoke_note.not_loaded(error)])
        raise
    if to_note:
        smoke_note.note(to_note, [smoke_note.verdict_of(each) for each in found])
    return found


def raise_for(reports: list[SmokeReport]) -> None:
    """Raises SmokeTestFailed when a model predicts something else here than on the box."""
    problems = [
        f"{report.folder} on {report.device}: {problem}"
        for report in reports
        if report.comparison
        for problem in report.comparison.problems
    ]
    if problems:
        raise SmokeTestFailed(
            "the model does not predict here what it predicted on the box\n" + "\n".join(problems),
            meaning="Either the files here are not the model that was trained, or this device computes it wrongly.",
            hint="Repeat with --device cpu; if that differs too, fetch again (gpurun fetch) and repeat.",
        )


def target_of(named: str | None) -> tuple[Path, Run | None]:
    """The folder that ``[RUN or DIR]`` names, and the run that it came from if this machine has a record of it.

    Raises UnknownRun, or ArtifactError for a run that was not fetched.
    """
    if named is not None and named not in store.run_ids() and (os.path.exists(named) or os.sep in named):
        folder = Path(named).expanduser().absolute()
        return folder, run_of(folder)
    run = store.find_started(named)
    if not run.fetched_into:
        raise ArtifactError(f"nothing of {run.run_id} was fetched yet", hint=f"Type gpurun fetch {run.run_id} first.")
    return Path(run.fetched_into), run


def test_model(
    folder: Path,
    report: Reporter,
    *,
    run: Run | None = None,
    device: str = "auto",
    inputs: Path | None = None,
    rounded_to: str = "float32",
) -> SmokeReport:
    """Tests the model in ``folder``. ``rounded_to`` is the dtype that its weights were rounded to since the predictions were made.

    Raises SmokeTestFailed for a model that does not load.
    """
    with report.stage(f"inspect {folder.name}"):
        model = read_model_folder(folder)
    if model.inspected.pickles:
        report.warn(f"never opened, since they are pickles: {', '.join(model.inspected.pickles[:5])}")
    base = bring_base(model, run, report)
    dtype = choose_dtype(model, base, report, elsewhere="Test it on a machine with more memory: gpurun smoke-test DIR.")
    request = smoke_request(model, base, dtype, device, inputs)
    with (
        report.stage(f"load and ask {folder.name}") as stage,
        model_process(request, SmokeTestFailed, meaning="Nothing was compared.") as process,
    ):
        result = process.receive(SmokeResult, show(stage))
    return _report(model, result, dtype, run, rounded_to)


def smoke_request(
    model: ModelFolder, base: Path | None, dtype: str, device: str, inputs: Path | None = None
) -> SmokeRequest:
    """Load this model, in ``dtype`` on ``device``, and compare it with the box; with ``inputs``, predict those instead."""
    folder = model.folder.absolute()
    compares = model.reference is not None and inputs is None
    reference = folder / INPUTS if compares else None
    return SmokeRequest(
        folder=folder,
        base=base,
        described=model.described,
        kind=model.kind,
        adapter=model.adapter,
        device=device,
        dtype=dtype,
        labels=model.labels,
        max_length=model.max_length,
        inputs=inputs.absolute() if inputs else reference,
        expected=folder / EXPECTED if compares else None,
    )


def _report(model: ModelFolder, result: SmokeResult, dtype: str, run: Run | None, rounded_to: str) -> SmokeReport:
    found = result.predictions
    comparison = None
    if found.comparison is not None and model.reference is not None:
        own = _own_tolerance(run, result.device)
        scale = found.comparison.scale
        allowed = allowed_difference((model.reference.dtype, dtype, rounded_to), result.device, scale, own)
        comparison = compare(found.comparison, allowed)
    seconds = max(found.seconds, 1e-9)
    return SmokeReport(
        folder=model.folder,
        kind=model.kind,
        device=result.device,
        device_name=result.device_name,
        dtype=dtype,
        torch=result.torch,
        load_seconds=result.load_seconds,
        samples=found.samples,
        samples_per_second=found.samples / seconds,
        tokens_per_second=found.tokens / seconds if found.tokens is not None else None,
        peak_memory=result.peak_memory,
        counts=count_labels(found.counts, model.labels),
        texts=found.texts,
        comparison=comparison,
        not_opened=model.inspected.pickles,
        labelled=found.labelled,
    )


def _own_tolerance(run: Run | None, device: str) -> float | None:
    """``smoke_test.tolerance`` of the job, for this device."""
    given: dict[str, float | None] = asdict(run.job.smoke_test.tolerance) if run else {}
    return given.get(device)
