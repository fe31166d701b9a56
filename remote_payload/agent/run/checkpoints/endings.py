"""Whether a file has its end, by its name or its format: a file that was cut off is never taken for a whole one.

Nothing is unpickled or unpacked: a few bytes at the beginning and at the end of the file are read.
"""

import json
import os
import posixpath
import struct
from typing import BinaryIO, Optional

ZIP = b"PK\x03\x04"  # torch.save since 1.6, numpy.savez, Keras: the directory comes last
ZIPPED = (".pt", ".pth", ".ckpt", ".npz", ".keras")
END = b"PK\x05\x06"  # end of the central directory record: PKWARE's APPNOTE 4.3.16
END_SIZE = 22
LONGEST_COMMENT = 0xFFFF
MAX_HEADER = 100_000_000  # bytes of a safetensors header, as the library has it
UNFINISHED = (".tmp", ".partial")
UNFINISHED_INSIDE = (".tmp-", ".partial-", ".old-")
APPEND_ONLY = (".jsonl", ".log")


def is_unfinished(name: str) -> bool:
    """Whether a file of this name is one that a program renames when it is complete."""
    return name.endswith(UNFINISHED) or any(mark in name for mark in UNFINISHED_INSIDE)


def append_only(path: str) -> bool:
    """Whether a file of this name only ever grows: TensorBoard events, JSON Lines and text logs."""
    name = posixpath.basename(path)
    return name.endswith(APPEND_ONLY) or "tfevents" in name


def cut_off(path: str) -> Optional[str]:
    """Why the file cannot be whole, None where its format does not show that. Raises OSError."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        first = file.read(8)
        if path.endswith(".safetensors"):
            return None if _safetensors_size(file, first) == size else "its tensors are not all there"
        is_begun = path.endswith(ZIPPED) and first and ZIP.startswith(first)  # not even its first word is whole
        if first.startswith(ZIP) or is_begun:
            return None if _has_directory(file, size) else "its end is missing"
    return None


def _has_directory(file: BinaryIO, size: int) -> bool:
    """Whether a zip file ends with its directory."""
    file.seek(max(0, size - END_SIZE - LONGEST_COMMENT))
    tail = file.read(END_SIZE + LONGEST_COMMENT)
    at = tail.rfind(END)
    if at < 0 or len(tail) - at < END_SIZE:
        return False
    (comment,) = struct.unpack_from("<H", tail, at + 20)
    return bool(at + END_SIZE + comment == len(tail))


def _safetensors_size(file: BinaryIO, first: bytes) -> int:
    """How many bytes a safetensors file has by its own header, -1 where the header is not whole
    (https://huggingface.co/docs/safetensors: 8 bytes of length, JSON with ``data_offsets``, the data)."""
    if len(first) < 8:
        return -1
    (length,) = struct.unpack("<Q", first)
    if length > MAX_HEADER:
        return -1
    try:
        tensors = json.loads(file.read(length).decode("utf-8"))
        ends = [each["data_offsets"][1] for name, each in tensors.items() if name != "__metadata__"]
        return 8 + int(length) + int(max(ends, default=0))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return -1
