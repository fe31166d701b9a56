"""``gpurun sample`` on this machine: loads a checkpoint as the box does, and answers prompts as they come."""

from __future__ import annotations

import time
from typing import IO

import torch
import transformers
from torch import nn

from remote_payload.recipes import sample as recipe
from remote_payload.train.evaluation.generation import Sampling
from remote_payload.train.model.causal import base_of
from runner.local_model.lines import read_prompt
from runner.local_model.messages import Progress, SampleRequest, Send
from runner.local_model.worker import device as devices

EVERY = 1.0  # seconds between two lines of progress


def sample(request: SampleRequest, prompts: IO[bytes], send: Send) -> None:
    """Sends ``Loaded``, then an ``Answer`` to each line of ``prompts`` until their end. Raises Refused and InputError."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if request.device != "auto":
        devices.choose(request.device)
    device = recipe.choose_device(request.device, request.folder)
    send(Progress(note=f"loading on {device}"))
    dtype = torch.bfloat16 if device.type == "cuda" else getattr(torch, request.dtype)
    model = recipe.load(request.folder, device, dtype, base=request.ask_base, base_path=request.base)
    report_while_busy(model.network, send)
    send(recipe.describe(model))
    sampling = Sampling(**vars(request.sampling))
    for line in iter(prompts.readline, b""):
        send(recipe.answer(model, read_prompt(line), sampling))


def report_while_busy(network: nn.Module, send: Send) -> None:
    """Sends progress while the model computes, since one answer may take longer than the process may be silent."""
    last = time.monotonic()

    def report(*_: object) -> None:
        nonlocal last
        if time.monotonic() - last > EVERY:
            last = time.monotonic()
            send(Progress(note="generating"))

    base_of(network).register_forward_hook(report)  # peft calls the model inside, not itself
