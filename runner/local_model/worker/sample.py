"""``gpurun sample`` on this machine: loads a model as the box does, and answers prompts as they come."""

from __future__ import annotations

import time
from typing import IO

import torch
import transformers
from torch import nn

from remote_payload.train.inference.trying import choose_device, describe, load_trial
from remote_payload.train.model.causal import base_of
from runner.local_model.lines import read_prompt
from runner.local_model.messages import Progress, SampleRequest, Send
from runner.local_model.worker import device as devices

EVERY = 1.0  # seconds between two lines of progress


def sample(request: SampleRequest, prompts: IO[bytes], send: Send) -> None:
    """Sends ``Loaded``, then an ``Answered`` to each line of ``prompts`` until their end. Raises Refused and InputError."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    settings = request.settings
    if settings.device != "auto":
        devices.choose(settings.device)
    device = choose_device(settings.device, request.folder, request.base)
    send(Progress(note=f"loading on {device}"))
    dtype = torch.bfloat16 if device.type == "cuda" else getattr(torch, request.dtype)
    trial = load_trial(request.folder, settings, device, dtype, name=request.name, base_path=request.base)
    for target in (trial.target, trial.base):
        if target is not None and target.kind == "causal_lm":
            report_while_busy(target.model, send)
    send(describe(trial, request.folder))
    for line in iter(prompts.readline, b""):
        send(trial.answer(read_prompt(line)))


def report_while_busy(network: nn.Module, send: Send) -> None:
    """Sends progress while the model computes, since one answer may take longer than the process may be silent."""
    last = time.monotonic()

    def report(*_: object) -> None:
        nonlocal last
        if time.monotonic() - last > EVERY:
            last = time.monotonic()
            send(Progress(note="generating"))

    base_of(network).register_forward_hook(report)  # peft calls the model inside, not itself
