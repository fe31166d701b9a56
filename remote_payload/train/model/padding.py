"""The mask of padded rows, made without asking the device whether any row is padded: whoever padded them knows.

transformers leaves the mask out where nothing is padded. To see that, it reads the padding back from the device in every forward
pass, and the host waits. With ``PADDED`` as its attention, an encoder takes the answer from ``known_padding`` instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

PADDED = "gpurun_padded"  # transformers' own ``sdpa``, but for how its mask is made

_known: list[bool] = []  # whether the rows of the present forward pass are padded; empty where nobody said


@contextmanager
def known_padding(padded: bool | None) -> Iterator[None]:
    """Inside, a forward pass believes that its rows are padded, or are not; None: transformers looks."""
    before = list(_known)
    _known[:] = [] if padded is None else [padded]
    try:
        yield
    finally:
        _known[:] = before


class FilledOnDevice(TorchFunctionMode):
    """Inside, a truth value that becomes a tensor is filled on ``device``. The mask of Gemma 3 in both directions makes one on the
    host (transformers 5.23), and the host waits until it is copied.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.tensor and args and isinstance(args[0], bool):
            return torch.full((), args[0], dtype=torch.bool, device=self.device)
        return func(*args, **(kwargs or {}))


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    if _known and not _known[0]:
        kwargs["attention_mask"] = None
    elif _known and kwargs.get("attention_mask") is not None:
        kwargs |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    with FilledOnDevice(torch.device(kwargs.get("device", "cpu"))):
        mask: Tensor | None = sdpa_mask(*args, **kwargs)
    return mask


AttentionInterface.register(PADDED, sdpa_attention_forward)
AttentionMaskInterface.register(PADDED, _mask)
