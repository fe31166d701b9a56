"""A GPU that computes nothing: every operator of torch runs on shapes, dtypes and devices alone.

Tensors of the host stay ordinary tensors and are computed, so data, tokens and random numbers are real. Tensors of the device are fake.
What was on the device comes back to the host as a fake tensor too, so that 44 GB of weights need no memory; small ones know their values
(``known.py``). ``weights`` are fake on the host as well.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves

from tests.gpu.null.known import assumed, can_follow, follow, values_of
from tests.gpu.null.live_bytes import LiveBytes
from tests.gpu.waits import Waits, needs_data, tensors_of

aten = torch.ops.aten
LARGE = 16 << 20  # bytes of a tensor of the host from which on it is fake, since nobody reads it
KERNELS = ("attn", "attention", "fused_adamw", "all_reduce", "all_gather", "reduce_scatter")  # operators worth naming


class Thread(threading.local):
    """The backward pass runs in a thread of its own."""

    inside = False  # an operator


class NullGpu(FakeTensorMode):
    """Use it as a context: inside, ``cuda`` is a device of ``capacity`` bytes that computes nothing."""

    def __init__(self, capacity: int = 80 << 30) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.memory = LiveBytes(capacity)
        self.waits = Waits()
        self.kernels: dict[str, int] = {}
        self._weights = False
        self._pinned: set[int] = set()
        self._thread = Thread()

    @property
    def avoid_device_init(self) -> bool:
        """Of FakeTensorMode: without it ``torch.tensor(…, device="cuda")`` would make a tensor of the runtime, which is not fake."""
        return True

    @contextmanager
    def weights(self) -> Iterator[None]:
        """Inside, all that is made is fake, on the host too: a model is built of its shapes."""
        before, self._weights = self._weights, True
        try:
            yield
        finally:
            self._weights = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:  # two of three calls ask for a device
            return args[0].fake_device
        return self.dispatch(func, types, args, kwargs or {})

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if self._thread.inside:  # a part of an operator, which a GPU does in one kernel
            return super().dispatch(func, types, args, kwargs)
        if not self._is_fake(func, args, kwargs):
            return func(*args, **kwargs)
        self.waits.see(func, args, kwargs)
        name = func.__name__
        if any(word in name for word in KERNELS):
            self.kernels[name] = self.kernels.get(name, 0) + 1
        if func is aten.is_pinned.default:
            return self.has_pinned(args[0])
        if func is aten._local_scalar_dense.default:
            return assumed(args[0]).item()
        if needs_data(func, args, kwargs):
            return self._from_data(func, args, kwargs)
        out = self._without_data(func, args, kwargs)
        for leaf in tree_leaves(out):
            if isinstance(leaf, FakeTensor) and leaf.fake_device.type == "cuda":
                self.memory.saw(leaf.untyped_storage(), name)
        return out

    def _is_fake(self, func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
        """Whether the device takes part in it, in one way or another."""
        nothing_goes_in = True
        for tensor in tensors_of((*args, *kwargs.values())):
            nothing_goes_in = False
            if isinstance(tensor, FakeTensor):
                return True
        device = kwargs.get("device")
        if device is not None and torch.device(device).type == "cuda":
            return True
        return nothing_goes_in and "device" in kwargs and (self._weights or is_large(args, kwargs))

    def _without_data(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """The operator on shapes alone; what is pinned is noted, and values follow where they are known."""
        pinned = bool(kwargs.pop("pin_memory", False)) or func is aten._pin_memory.default
        if func is aten._pin_memory.default:
            func, args, kwargs = aten.empty_like.default, args[:1], {}
        out = self._shapes(func, args, kwargs)
        if pinned:
            storage = out.untyped_storage()
            self._pinned.add(storage._cdata)
            weakref.finalize(storage, self._pinned.discard, storage._cdata)
        if not self._weights and can_follow(func, args, kwargs):
            follow(func, args, kwargs, out)
        if func is aten.copy_.default and not isinstance(args[0], FakeTensor):
            return args[0]  # the host's own tensor, which keeps what it held
        return out

    def _from_data(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """An operator whose result or its shape depends on data. Of unknown data ``nonzero`` drops a row, so that neither all nor none
        are chosen."""
        device = next(tensor.fake_device for tensor in tensors_of(args) if isinstance(tensor, FakeTensor))
        found = values_of(func, args, kwargs)
        if torch.Tag.data_dependent_output in func.tags:
            return func(*[assumed(value) if isinstance(value, Tensor) else value for value in args])
        if found is not None:
            return [self.carry(value, device) for value in found] if len(found) > 1 else self.carry(found[0], device)
        if func is aten.nonzero.default:
            return self._empty((max(args[0].numel() - 1, 1), args[0].dim()), torch.long, device)
        if func in (aten.index_put_.default, aten.index_put.default):
            return self._shapes(func, args, kwargs)
        raise NotImplementedError(f"{func} of values that the null GPU does not know")

    def carry(self, value: Tensor, device: torch.device) -> Tensor:
        """A fake tensor on ``device`` with known values."""
        out = self._empty(value.shape, value.dtype, device)
        out.known = value
        return out

    def has_pinned(self, tensor: FakeTensor) -> bool:
        """Whether a tensor of the host lies in pinned memory."""
        return tensor.untyped_storage()._cdata in self._pinned

    def fake(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A fake tensor of the host, with no values."""
        return self._empty(shape, dtype, torch.device("cpu"))

    def _empty(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        return self._shapes(aten.empty.memory_format, (list(shape),), {"dtype": dtype, "device": device})

    def _shapes(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """The operator as FakeTensorMode does it; all tensors that it makes on its way are fake too."""
        self._thread.inside = True
        try:
            return super().dispatch(func, (), args, kwargs)
        finally:
            self._thread.inside = False
            # What it remembers holds weak references, with which Module.to cannot replace a parameter.
            self.fake_tensor_converter.meta_converter.tensor_memo.clear()


def is_large(args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a new tensor of the host would take more than LARGE."""
    size = next((value for value in args if isinstance(value, (list, tuple))), ())
    count = torch.Size(size).numel() if all(isinstance(value, int) for value in size) else 0
    return count * (kwargs.get("dtype") or torch.get_default_dtype()).itemsize > LARGE
