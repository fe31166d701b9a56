"""Reads and checks the header of a safetensors file before any library maps the file.

The format (huggingface/safetensors): eight bytes, little endian, with the header's length; the header, a JSON object
``{name: {"dtype", "shape", "data_offsets": [begin, end]}}``; then the tensors' bytes, without holes or overlaps.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

MAX_HEADER = 25_000_000  # bytes; what huggingface_hub accepts, four times less than the library
MAX_TENSORS = 200_000
MAX_DIMENSIONS = 16
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """One entry of a header. ``begin`` and ``end`` are offsets in the data that follows it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        count = 1
        for size in self.shape:
            count *= size
        return count


def read_header(path: Path) -> list[Tensor]:
    """The tensors of a safetensors file, in the order of their bytes. Raises ValueError naming what is wrong."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            raise ValueError(f"{size} bytes are too few for a header")
        length = int.from_bytes(file.read(8), "little")
        if length > min(MAX_HEADER, size - 8):
            raise ValueError(f"it claims a header of {length} bytes (the file has {size}, the limit is {MAX_HEADER})")
        entries = _parse(file.read(length))
    tensors = sorted(
        (_tensor(name, entry) for name, entry in entries.items()), key=lambda tensor: (tensor.begin, tensor.end)
    )
    _check_layout(tensors, size - 8 - length)
    return tensors


def _parse(raw: bytes) -> dict[str, object]:
    try:
        header = json.loads(raw, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its header is not JSON ({type(error).__name__}: {str(error)[:80]})") from None
    if not isinstance(header, dict):
        raise ValueError("its header is not an object")
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise ValueError(f"it claims {len(header)} tensors")
    return header


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of these fields. Raises ValueError for a name that stands there twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _tensor(name: str, entry: object) -> Tensor:
    shown = ascii(name[:80])
    if not isinstance(entry, dict):
        raise ValueError(f"tensor {shown} is no object")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"tensor {shown} has the unknown dtype {ascii(dtype)[:40]}")
    if not _are_sizes(shape, MAX_DIMENSIONS):
        raise ValueError(f"tensor {shown} has no usable shape")
    if not _are_sizes(offsets, 2) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"tensor {shown} has no usable offsets")
    tensor = Tensor(name, dtype, tuple(shape), offsets[0], offsets[1])
    if tensor.elements * BITS[dtype] != (tensor.end - tensor.begin) * 8:
        raise ValueError(f"tensor {shown}: {tensor.end - tensor.begin} bytes for {dtype} of shape {list(shape)[:8]}")
    return tensor


def _are_sizes(value: object, most: int) -> TypeGuard[list[int]]:
    """Whether this is a list of at most ``most`` whole numbers from 0 to 2^50."""
    return (
        isinstance(value, list)
        and len(value) <= most
        and all(type(item) is int and 0 <= item < 1 << 50 for item in value)
    )


def _check_layout(tensors: list[Tensor], available: int) -> None:
    """Raises ValueError when the tensors overlap, leave a hole, or do not fill the ``available`` bytes."""
    at = 0
    for tensor in tensors:
        if tensor.begin != at:
            problem = "overlaps the one before" if tensor.begin < at else "leaves a hole"
            raise ValueError(f"tensor {tensor.name[:80]!a} {problem} (at byte {tensor.begin}, expected {at})")
        at = tensor.end
    if at != available:
        raise ValueError(f"its tensors take {at} bytes, and {available} are there")
