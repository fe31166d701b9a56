"""Models from folders: safetensors only, nobody's code, nothing from the network."""

from __future__ import annotations

import torch
import transformers
from torch import nn
from transformers import PreTrainedTokenizerBase

from remote_payload.train.inference.plain_model import load_plain
from remote_payload.train.inference.target import load_target
from runner.local_model.messages import SmokeRequest
from runner.local_model.worker import Refused


def load(request: SmokeRequest, device: torch.device, dtype: torch.dtype) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """Model (in evaluation mode, on the device) and tokenizer of the folder. Raises InputError of the training code."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if request.kind == "encoder":  # it predicts nothing, and is only seen to load and run
        plain = load_plain(request.folder, str(request.base) if request.base else None, dtype, kind="encoder")
        return plain.model.to(device).eval(), plain.tokenizer
    target = load_target(request.folder, base_path=request.base, device=device, dtype=dtype)
    return target.model, target.tokenizer


def check_weights(model: nn.Module) -> None:
    """Raises Refused when a weight is NaN or infinite."""
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not weight.isfinite().all():
            raise Refused(f"the weight {name} holds NaN or infinity")
