"""safetensors files of fake tensors: the header is real, and where a tensor has no data the file has a hole that takes no disk.

What is read from a hole is a fake tensor again. Tensors with data (random number generators) are written and read as always. A hole is
not read to hash it: 44 GB of zeros would take a minute.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from safetensors.torch import _SIZE, _TYPES
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from tests.gpu.null.known import known

NAMES = {dtype: name for name, dtype in _TYPES.items() if dtype is not None}
FAKE = "without_data"  # the entry of the header's metadata: names of tensors that have none


def save_file(tensors: dict[str, Tensor], filename: Any, metadata: dict[str, str] | None = None) -> None:
    """As safetensors writes the file, and as strict: tensors must be contiguous. Those of the device are copied to the host first."""
    tensors = {name: tensor.to("cpu") for name, tensor in tensors.items()}
    header: dict[str, Any] = {}
    at = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-_SIZE[item[1].dtype], item[0])):
        if not tensor.is_contiguous():
            raise ValueError(f"{name} is not contiguous")
        size = tensor.numel() * _SIZE[tensor.dtype]
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    without = [name for name, tensor in tensors.items() if known(tensor) is None]
    header["__metadata__"] = {**(metadata or {}), FAKE: json.dumps(without)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(filename, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(set(tensors) - set(without)):
            file.seek(8 + len(text) + header[name]["data_offsets"][0])
            values = known(tensors[name]).contiguous()
            file.write(values.reshape(-1).view(torch.uint8).numpy().tobytes() if values.numel() else b"")
        file.truncate(8 + len(text) + at)


def load_file(filename: Any, device: Any = "cpu", **options: Any) -> dict[str, Tensor]:
    """The tensors of a file; those that lie in a hole are fake, with the shapes of the header. Needs a NullGpu around it."""
    with safe_open(filename, framework="pt") as file:
        without = set(json.loads((file.metadata() or {}).get(FAKE, "[]")))
        tensors = {}
        for name in file.keys():  # noqa: SIM118 (it is no dict)
            part = file.get_slice(name)
            if name in without:
                tensors[name] = _fake(part.get_shape(), _TYPES[part.get_dtype()])
            else:
                tensors[name] = file.get_tensor(name)
        return {name: tensor.to(device) for name, tensor in tensors.items()}


def _fake(shape: list[int], dtype: torch.dtype) -> Tensor:
    mode = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE)
    return mode.fake(shape, dtype)


def digest(file: BinaryIO) -> str:
    """The sha256 of what a file holds, its size and the places of its holes included."""
    sha256 = hashlib.sha256()
    size = os.fstat(file.fileno()).st_size
    at = 0
    while at < size:
        try:
            start = os.lseek(file.fileno(), at, os.SEEK_DATA)
        except OSError:  # nothing but holes from here on
            break
        end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
        sha256.update(f"{start} {end} ".encode())
        file.seek(start)
        sha256.update(file.read(end - start))
        at = end
    sha256.update(str(size).encode())
    file.seek(size)
    return sha256.hexdigest()


def storage_of(tensor: Tensor) -> tuple[Any, int, int]:
    """What transformers and peft tell shared tensors by: device, storage, size. A fake storage has no address."""
    storage = tensor.untyped_storage()
    return tensor.device, storage._cdata if isinstance(tensor, FakeTensor) else storage.data_ptr(), storage.nbytes()
