"""``gpurun predict`` on this machine: loads the model and predicts files, with the code that does it on a box."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import transformers

from remote_payload.train.distributed import World
from remote_payload.train.errors import InputError
from remote_payload.train.inference.predicting import Progressed, check_rows, predict_files
from remote_payload.train.inference.target import load_target
from runner.local_model.messages import PredictRequest, PredictResult, Progress, Send
from runner.local_model.worker import Refused
from runner.local_model.worker import device as devices
from runner.local_model.worker.sample import report_while_busy

SHOWN = 20  # bad rows
EVERY = 0.5  # seconds between two lines of progress


def predict(request: PredictRequest, send: Send) -> PredictResult:
    """Predicts the files, or with ``check`` reads them. Raises Refused and InputError."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    device = devices.choose(request.device)
    try:
        return _check(request, device) if request.check else _predict(request, device, send)
    except InputError as error:
        raise Refused(str(error), of_input=True) from None


def _check(request: PredictRequest, device: str) -> PredictResult:
    began = time.perf_counter()
    rows, problems = check_rows(request.settings, request.kind)
    seconds = time.perf_counter() - began
    return PredictResult(device, rows, len(problems), 0, {}, 0, seconds, 0, tuple(problems[:SHOWN]))


def _predict(request: PredictRequest, device: str, send: Send) -> PredictResult:
    send(Progress(note=f"loading on {device}"))
    dtype = getattr(torch, request.dtype)
    try:
        target = load_target(request.folder, name=request.name, base_path=request.base, device=device, dtype=dtype)
    except InputError as error:
        raise Refused(str(error)) from None
    if target.kind == "causal_lm":
        report_while_busy(target.model, send)
    found = predict_files(target, request.settings, World(0, 1, 0, torch.device(device)), _told(send))
    totals = found.totals
    return PredictResult(
        device, totals.rows, totals.bad, totals.cut, totals.counts, found.predicted, found.seconds, devices.peak_memory(device)
    )  # fmt: skip


def _told(send: Send) -> Callable[[Progressed], None]:
    last = 0.0

    def tell(progress: Progressed) -> None:
        nonlocal last
        if time.monotonic() - last > EVERY or progress.done == progress.total:
            last = time.monotonic()
            speed = f"{progress.rows:,} rows, {progress.rows / max(progress.seconds, 1e-9):,.0f} rows/s"
            send(Progress(progress.done, progress.total, speed if progress.rows else "passing over what is done"))

    return tell
