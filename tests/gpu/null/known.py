"""Small tensors of which the null GPU knows the values, although it computes none.

A program reads little of the device's data: counts, flags, the bounds of documents, a loss. Most of it follows from the host. So a fake
tensor that is small may carry its values (``known``, an ordinary tensor on the CPU). They come from the host and follow through every
operator whose inputs are all known; what would come out of the network counts as ones (False for a flag). So counts and
flags are exact, a loss is 1, and every token that a model chooses has the number 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves, tree_map

from tests.gpu.waits import tensors_of

aten = torch.ops.aten
MOST = {True: 4096, False: 1 << 17}  # numbers in a tensor whose values are kept: floating point, others
WITHOUT_VALUES = (
    "empty",
    "rand",
    "normal",
    "uniform",
    "bernoulli",
    "dropout",
    "multinomial",
    "exponential",
    "attention",
)


def known(tensor: Tensor) -> Tensor | None:
    """The tensor's values; an ordinary tensor is its own. None where they are not known."""
    return getattr(tensor, "known", None) if isinstance(tensor, FakeTensor) else tensor


def assumed(tensor: Tensor) -> Tensor | None:
    """Its values, or ones where a small tensor came out of the network. None for a large one."""
    found = known(tensor)
    if found is None and is_small(tensor):
        make = torch.zeros if tensor.dtype == torch.bool else torch.ones
        found = make(tensor.shape, dtype=tensor.dtype)
    return found


def is_small(tensor: Tensor) -> bool:
    return tensor.numel() <= MOST[tensor.dtype.is_floating_point or tensor.dtype.is_complex]


def can_follow(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether the operator's result may be known: something that goes in is, or nothing does (a tensor of zeros)."""
    inputs = list(tensors_of((*args, *kwargs.values())))
    if any(word in func.__name__ for word in WITHOUT_VALUES):
        return False
    return not inputs or any(known(tensor) is not None for tensor in inputs)


def follow(func: Any, args: Any, kwargs: dict[str, Any], out: Any) -> None:
    """Gives the results of an operator their values, by doing it on the CPU with the values of its inputs."""
    results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, FakeTensor)]
    if results and all(map(is_small, results)):
        values = values_of(func, args, kwargs)
        if values is not None:
            for result, value in zip(results, values, strict=True):
                result.known = value
            return
    forget_written(func, args)


def values_of(func: Any, args: Any, kwargs: dict[str, Any]) -> list[Tensor] | None:
    """The tensors that the operator gives for the values of its inputs; None where they are unknown or the CPU cannot do it."""
    if any(assumed(tensor) is None for tensor in tensors_of((*args, *kwargs.values()))):
        return None
    options = {name: value for name, value in kwargs.items() if name not in ("pin_memory", "device")}
    if "device" in kwargs:
        options["device"] = torch.device("cpu")

    def own(value: Any) -> Any:
        return assumed(value) if isinstance(value, Tensor) else value

    try:
        out = func(*tree_map(own, list(args)), **tree_map(own, options))
    except (RuntimeError, NotImplementedError):
        return None
    if func is aten._to_copy.default or func is aten.lift_fresh.default:
        out = out.clone()  # what is copied from the host must not change with the host's tensor
    return [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]


def forget_written(func: Any, args: Any) -> None:
    """Known tensors that an operator wrote unknown values to are ones from here on, and so are all views of them."""
    for argument, value in zip(func._schema.arguments, args, strict=False):
        if argument.alias_info is not None and argument.alias_info.is_write:
            for tensor in tensors_of([value]):
                if isinstance(tensor, FakeTensor) and known(tensor) is not None:
                    known(tensor).fill_(tensor.dtype != torch.bool)
