"""safetensors files of fake tensors: the header is real, and where a tensor has no data the file has a hole that takes no disk.

What is read from a hole is a fake tensor again. Tensors with data (random number generators) are written and read as always. A hole is
not read to hash it: 44 GB of zeros would take a minute.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import _SIZE, _TYPES
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from tests.gpu.null.known import known

NAMES = {dtype: name for name, dtype in _TYPES.items() if dtype is not None}


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
    if metadata:
        header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(filename, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in tensors.items():
            values = known(tensor)
            if values is not None and values.numel():
                file.seek(8 + len(text) + header[name]["data_offsets"][0])
                file.write(values.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        file.truncate(8 + len(text) + at)


def write_pieces(path: Path, begin: bytes, pieces: Iterable[Tensor]) -> str:
    """As ``tensor_file.write_pieces``: a piece without data leaves a hole. Returns what ``digest`` gives for the file."""
    with path.open("wb") as file:
        file.write(begin)
        for piece in pieces:
            values = known(piece)
            if values is None:
                file.seek(piece.numel(), os.SEEK_CUR)
            else:
                file.write(values.contiguous().numpy().tobytes())
        file.truncate(file.tell())
    with path.open("rb") as file:
        return digest(file)


def load_file(filename: Any, device: Any = "cpu", **options: Any) -> dict[str, Tensor]:
    """The tensors of a file; those that lie in a hole are fake, with the shapes of the header. Needs a NullGpu around it."""
    mode = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE)
    tensors = {}
    with open(filename, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            dtype, (start, end) = _TYPES[entry["dtype"]], (8 + length + at for at in entry["data_offsets"])
            if _is_hole(file, start, end):
                tensors[name] = mode.fake(entry["shape"], dtype)
            else:
                content = torch.frombuffer(bytearray(os.pread(file.fileno(), end - start, start)), dtype=torch.uint8)
                tensors[name] = content.view(dtype).reshape(entry["shape"])
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _is_hole(file: BinaryIO, start: int, end: int) -> bool:
    """Whether there is a place without data between these two. A hole begins with a block, so a tensor of a few bytes may have none; it
    is read as zeros."""
    try:
        return end > start and os.lseek(file.fileno(), start, os.SEEK_HOLE) < end
    except OSError:
        return True


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
        sha256.update(os.pread(file.fileno(), end - start, start))
        at = end
    sha256.update(str(size).encode())
    file.seek(size)
    return sha256.hexdigest()


def storage_of(tensor: Tensor) -> tuple[Any, int, int]:
    """What transformers and peft tell shared tensors by: device, storage, size. A fake storage has no address."""
    storage = tensor.untyped_storage()
    return tensor.device, storage._cdata if isinstance(tensor, FakeTensor) else storage.data_ptr(), storage.nbytes()
