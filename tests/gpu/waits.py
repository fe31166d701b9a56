"""Counts where the host waits for the device, and how data gets there, by the line of this project that asked for it.

The same rules hold for real and for fake tensors, so a real GPU and the null GPU are counted alike: an operator waits when its result,
or the shape of it, depends on the device's data (torch tags these operators), and when data is copied to the host at once.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default)
MASKED = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default)
NEEDS_SIZE = (aten.repeat_interleave.Tensor, aten.repeat_interleave.self_Tensor)


class Waits:
    """``waits``: host waits for the device. ``pageable``: copies to the device from memory that is not pinned, which are no
    asynchronous copies whatever was asked for. ``pinned``: real asynchronous ones. Each a count by line.
    """

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.pageable: Counter[str] = Counter()
        self.pinned: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return sum(self.waits.values())

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """An operator that is about to run."""
        if func in COPIES:
            self._copy(func, args, kwargs)
        elif needs_data(func, args, kwargs) and any(tensor.device.type == "cuda" for tensor in tensors_of(args)):
            self.wait(func.name().removeprefix("aten::"))

    def wait(self, what: str) -> None:
        self.waits[f"{place()} {what}"] += 1

    def _copy(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        if func is aten.copy_.default:
            target, source = args[0].device.type, args[1]
            in_background = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
            host = args[0] if target == "cpu" else source
        else:
            source, host = args[0], args[0]
            target = (kwargs.get("device") or source.device).type
            in_background = kwargs.get("non_blocking", False)
        if not isinstance(source, Tensor) or source.numel() == 0:  # nothing is copied
            return
        if source.device.type == target or "meta" in (target, source.device.type):
            return
        if target == "cpu":  # what is copied to ordinary memory is there when the call returns; nobody else knows when
            if not (in_background and is_pinned(host)):
                self.wait("copy to the host")
        elif not in_background:
            self.wait("copy to the device")
        else:
            (self.pinned if is_pinned(source) else self.pageable)[place()] += 1


def is_pinned(tensor: Tensor) -> bool:
    """Whether a tensor of the host lies in pinned memory; a fake one says so itself."""
    if not hasattr(tensor, "fake_mode"):
        return tensor.device.type == "cpu" and tensor.is_pinned()
    return tensor.fake_mode.has_pinned(tensor)


def needs_data(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether the host must know the device's data before it can go on after this operator."""
    if func in MASKED:
        return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    if func in NEEDS_SIZE:
        return kwargs.get("output_size") is None
    return torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags


def tensors_of(values: Any) -> Iterator[Tensor]:
    """The tensors among arguments and in the lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_of(value)


def place() -> str:
    """``train/loop/step.py:102``: the innermost line of the payload that is being executed, and before it the one of a library that it
    called (``transformers/masking_utils.py:31 from …``). In the threads of the backward pass there may be none."""
    frame, library = sys._getframe(2), ""
    while frame is not None:
        file = frame.f_code.co_filename
        _, found, name = file.rpartition("/remote_payload/")
        if found:
            return f"{library} from {name}:{frame.f_lineno}" if library else f"{name}:{frame.f_lineno}"
        _, packages, name = file.rpartition("/site-packages/")
        if packages and not library and not name.startswith("torch/"):
            library = f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return library or "torch"


class CountingMode(TorchDispatchMode):
    """Counts on a real GPU; every operator runs as it would."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.waits.see(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))
