"""Safetensors files that are written piece by piece, and hashed while they are written.

``safetensors.save_file`` wants all tensors on the CPU at once and gives no sha256, so that a file of 44 GB has to be read again
for it. The format (https://huggingface.co/docs/safetensors): the length of the header in 8 bytes, little-endian; the header, a JSON
object; the bytes of the tensors, one after the other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

# In the order in which tensors of these types lie in a file: wide ones first, so that each begins at a multiple of its element's size.
DTYPES = {
    torch.uint64: "U64", torch.int64: "I64", torch.float64: "F64", torch.complex64: "C64",
    torch.float32: "F32", torch.uint32: "U32", torch.int32: "I32",
    torch.bfloat16: "BF16", torch.float16: "F16", torch.uint16: "U16", torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
PLACES = {dtype: place for place, dtype in enumerate(DTYPES)}
ALIGNED = 8  # bytes, of which the header's length is a multiple


def file_order(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names in the order of the file, as ``save_file`` has it. Raises KeyError for a dtype that is not in ``DTYPES``."""
    return sorted(tensors, key=lambda name: (PLACES[tensors[name].dtype], name))


def size_of(tensors: Iterable[Tensor]) -> int:
    """The bytes of all tensors together; of a sharded one those of all ranks."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def header(tensors: Mapping[str, Tensor]) -> bytes:
    """How the file begins: its header and the length of that. Raises KeyError for a dtype that is not in ``DTYPES``."""
    entries, end = {}, 0
    for name in file_order(tensors):
        tensor, start = tensors[name], end
        end = start + size_of([tensor])
        entries[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNED)
    return len(text).to_bytes(8, "little") + text


def in_pieces(tensors: Iterable[Tensor], buffer: Callable[[], Tensor]) -> Iterator[Tensor]:
    """The bytes of all tensors one after the other, copied into host buffers: each one that is full, and the begun last one.

    ``buffer`` gives the next buffer (uint8). Copies into pinned memory are only queued on the current stream.
    """
    into: Tensor | None = None
    used = 0
    for tensor in tensors:
        bytes_of = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        done = 0
        while done < len(bytes_of):
            if into is None:
                into, used = buffer(), 0
            count = min(len(into) - used, len(bytes_of) - done)
            into[used : used + count].copy_(bytes_of[done : done + count], non_blocking=into.is_pinned())
            used, done = used + count, done + count
            if used == len(into):
                yield into
                into = None
    if into is not None:
        yield into[:used]


def write_pieces(path: Path, begin: bytes, pieces: Iterable[Tensor]) -> str:
    """Writes a file of ``begin`` and the pieces (uint8, on the host). Returns its sha256. Raises OSError."""
    sha256 = hashlib.sha256(begin)
    with path.open("wb") as file, ThreadPoolExecutor(1) as hashing:
        file.write(begin)
        for piece in pieces:
            content = memoryview(piece.numpy())
            hashed = hashing.submit(sha256.update, content)  # while it is written; both let training's thread run
            file.write(content)
            hashed.result()
    return sha256.hexdigest()
