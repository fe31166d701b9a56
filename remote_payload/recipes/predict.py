"""Recipe ``predict``: a model's prediction for each row of files. It trains nothing; ``gpurun predict --host`` writes its jobs.

Each rank takes windows of rows in turn, on a GPU of its own. The output and ``predicted.json`` are the run's reports.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any

import torch

from remote_payload.recipes.evaluate import with_folders
from remote_payload.settings.predict import PredictJob
from remote_payload.train.files import write_json
from remote_payload.train.inference.footprint import peak_bytes
from remote_payload.train.inference.predicting import Progressed, predict_files
from remote_payload.train.inference.target import load_target
from remote_payload.train.model.precision import resolve_precision
from remote_payload.train.run import Run, launch

SUMMARY = "predicted.json"
SAID_EVERY = 10.0  # seconds


def main(run: Run[Any]) -> None:
    settings: PredictJob = run.settings
    device = torch.device("cpu") if settings.device == "cpu" else run.world.device
    with run.phase("model"):
        model = with_folders(run, settings.model)
        dtype = resolve_precision("auto", device)
        target = load_target(model.folder, name=model.name, base_path=model.base, device=device, dtype=dtype)
    run.reports.mkdir(parents=True, exist_ok=True)
    files = replace(settings.files, output=str(run.reports / settings.files.output))
    with run.phase("prediction"):
        found = predict_files(target, files, run.world, Told(run))
    speed = found.predicted / max(found.seconds, 1e-9)
    run.log(f"{found.totals.rows:,} rows, {found.totals.bad:,} of them bad; {speed:,.0f} rows/s")
    if run.world.main:
        about = {
            "kind": target.kind, "dtype": str(dtype).removeprefix("torch."), "device": device.type, **asdict(found.totals),
            "predicted": found.predicted, "seconds": found.seconds, "peak_memory": peak_bytes(device), "problems": [],
        }  # fmt: skip
        write_json(run.reports / SUMMARY, about)


class Told:
    """Says in the log how far the main rank is, once in ten seconds."""

    def __init__(self, run: Run[Any]) -> None:
        self._run, self._last = run, time.monotonic()

    def __call__(self, progress: Progressed) -> None:
        if time.monotonic() - self._last > SAID_EVERY:
            self._last = time.monotonic()
            share = progress.done / max(progress.total, 1)
            self._run.log(f"{share:.0%} of the input, {progress.rows / max(progress.seconds, 1e-9):,.0f} rows/s")


if __name__ == "__main__":
    launch("predict", main)
