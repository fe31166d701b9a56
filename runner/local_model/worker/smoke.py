"""A smoke test's part that needs torch: load, check the weights, predict, compare."""

from __future__ import annotations

import time

import torch

from runner.local_model.messages import Progress, Send, SmokeRequest, SmokeResult
from runner.local_model.worker import device as devices
from runner.local_model.worker.generate import generate
from runner.local_model.worker.load import check_weights, load
from runner.local_model.worker.predict import predict


def smoke(request: SmokeRequest, send: Send) -> SmokeResult:
    """What the model predicts on the device. Raises Refused and InputError for a model that is not loaded or asked."""
    torch.manual_seed(0)
    device = devices.choose(request.device)
    send(Progress(note=f"loading on {device}"))
    began = time.perf_counter()
    model, tokenizer = load(request, torch.device(device), getattr(torch, request.dtype))
    devices.synchronize(device)
    loaded = time.perf_counter() - began
    check_weights(model)
    ask = generate if request.kind == "causal_lm" else predict
    predictions = ask(request, model, tokenizer, device, send)
    return SmokeResult(
        device=device,
        device_name=devices.name(device),
        torch=torch.__version__,
        load_seconds=loaded,
        peak_memory=devices.peak_memory(device),
        predictions=predictions,
    )
