"""Counts where the host would wait for the device, on a machine without one.

On a CPU the tensors "on the device" are the model's, the micro-batches after ``MicroBatch.to``, and whatever is computed from either.
A wait is what needs the value of one of them on the host: an item, a list, a shape that depends on values, or a copy from the
host's ordinary memory.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from remote_payload.train.loop.step import MicroBatch

aten = torch.ops.aten
READ = {  # operators whose result or shape the host reads from the device
    aten._local_scalar_dense, aten.nonzero, aten.bincount, aten.masked_select, aten.equal, aten._unique2, aten.unique_dim,
    aten.unique_consecutive, aten.repeat_interleave, aten.is_nonzero,
}  # fmt: skip
INDEX = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
READ_BY_METHODS = (Tensor.tolist, Tensor.numpy, Tensor.cpu)  # of a CPU tensor no operator shows these
COPY_BY = (torch.tensor, torch.as_tensor)


class Waits:
    """The places of all waits, in order: ``what file:line``."""

    def __init__(self) -> None:
        self.places: list[str] = []
        self.batches = 0  # that went to the device
        self._on_device: set[int] = set()

    def put(self, values: Any) -> None:
        """These tensors are on the device from now on."""
        for tensor in tensors_in(values):
            for storage in storages_of(tensor):
                if storage._cdata not in self._on_device:
                    self._on_device.add(storage._cdata)
                    weakref.finalize(storage, self._on_device.discard, storage._cdata)

    def holds(self, values: Any) -> bool:
        return any(
            storage._cdata in self._on_device for tensor in tensors_in(values) for storage in storages_of(tensor)
        )

    def note(self, what: str) -> None:
        self.places.append(f"{what} {place()}")


def tensors_in(values: Any) -> Iterable[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def storages_of(tensor: Tensor) -> list[Any]:
    """Its memory; a sharded tensor's is that of its local part; inside vmap it cannot be told."""
    local = getattr(tensor, "_local_tensor", tensor)
    try:
        return [local.untyped_storage()]
    except (RuntimeError, NotImplementedError):
        return []


def as_tuple(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def place() -> str:
    """``file:line`` in the payload and, inside it, in transformers."""
    frame, found = sys._getframe(2), ""
    while frame is not None:
        name = frame.f_code.co_filename
        if "/remote_payload/" in name or "/jobs/" in name:
            return f"{name.rsplit('/', 1)[-1]}:{frame.f_lineno}{found}"
        if "/transformers/" in name and not found:
            found = f" < transformers {name.rsplit('/', 1)[-1]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere" + found


class _Operators(TorchDispatchMode):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(kind.__name__ == "DTensor" for kind in types):
            return NotImplemented  # its own dispatch comes back here with the local tensors
        kwargs, packet, waits = kwargs or {}, func.overloadpacket, self.waits
        if not waits.holds((args, kwargs)):
            return func(*args, **kwargs)
        if packet in READ:
            waits.note(packet.__name__)
        if packet in INDEX and any(index.dtype in (torch.bool, torch.uint8) for index in tensors_in(args[1])):
            waits.note("mask as index")
        found = func(*args, **kwargs)
        waits.put(found)
        if packet._qualified_op_name.startswith("c10d::"):
            waits.put(args)
        return found


class _Methods(TorchFunctionMode):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in READ_BY_METHODS and self.waits.holds(args):
            self.waits.note(func.__name__)
        if func in COPY_BY and kwargs.get("device") is not None and not isinstance(args[0], Tensor) and args[0] != []:
            self.waits.note("copy from ordinary memory")
        if (
            func is Tensor.__getitem__
            and self.waits.holds(args[0])
            and any(isinstance(each, list) for each in as_tuple(args[1]))
        ):
            self.waits.note("index from ordinary memory")
        return func(*args, **kwargs)


@contextmanager
def counted_waits(*on_device: Any) -> Iterator[Waits]:
    """Counts inside; ``on_device`` are tensors that are there already, such as a model's."""
    waits, move = Waits(), MicroBatch.to
    waits.put(on_device)

    def moved(batch: MicroBatch, device: torch.device) -> MicroBatch:
        found = move(batch, device)
        waits.batches += 1
        waits.put(found.tensors)
        return found

    MicroBatch.to = moved  # type: ignore[method-assign]
    try:
        with _Operators(waits), _Methods(waits):
            yield waits
    finally:
        MicroBatch.to = move  # type: ignore[method-assign]
