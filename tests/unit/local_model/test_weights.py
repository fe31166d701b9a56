"""Safetensors headers, sound and absurd."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from runner.local_model.weights import read_header


def written(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def one(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    tensors = {
        "a.weight": torch.zeros(3, 4),
        "b": torch.zeros(2, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 5),
        "flag": torch.zeros((), dtype=torch.bool),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found = {
        tensor.name: (tensor.dtype, tensor.shape, tensor.elements) for tensor in read_header(tmp_path / "x.safetensors")
    }
    assert found == {
        "a.weight": ("F32", (3, 4), 12),
        "b": ("BF16", (2,), 2),
        "empty": ("F32", (0, 5), 0),
        "flag": ("BOOL", (), 1),
    }


@pytest.mark.parametrize(
    ("header", "data", "length", "complaint"),
    [
        (b"", b"", 1 << 63, "claims a header of"),
        (b"{}", b"", 100, "claims a header of"),
        (b"[1]", b"", None, "not an object"),
        (b"{", b"", None, "not JSON"),
        (b"\xff\xfe", b"", None, "not JSON"),
        (b'{"a":' * 50_000, b"", None, "not JSON"),
        (b'{"w": {}, "w": {}}', b"", None, "a name twice"),
        ({"w": 3}, b"", None, "is no object"),
        (one(dtype="OBJECT"), b"\0" * 8, None, "unknown dtype"),
        (one(dtype=["F32"]), b"\0" * 8, None, "unknown dtype"),
        (one(shape=(-2,)), b"\0" * 8, None, "no usable shape"),
        (one(shape=(1 << 60,)), b"\0" * 8, None, "no usable shape"),
        (one(shape=(True, 2)), b"\0" * 8, None, "no usable shape"),
        (one(shape=[1] * 100), b"\0" * 8, None, "no usable shape"),
        (one(shape=(1 << 40, 1 << 40)), b"\0" * 8, None, "8 bytes for F32"),
        (one(offsets=(8, 0)), b"\0" * 8, None, "no usable offsets"),
        (one(offsets=(0,)), b"\0" * 8, None, "no usable offsets"),
        (one(offsets=(0, 1 << 40)), b"\0" * 8, None, "bytes for F32"),
        (one(shape=(1 << 20,), offsets=(0, 1 << 22)), b"\0" * 8, None, "8 are there"),
        (one(), b"\0" * 9, None, "9 are there"),
        (one(offsets=(4, 12)), b"\0" * 12, None, "leaves a hole"),
        ({**one(), "v": one(offsets=(4, 12))["w"]}, b"\0" * 12, None, "overlaps"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, header: Any, data: bytes, length: int | None, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_header(written(tmp_path / "x.safetensors", header, data, length))


def test_too_short_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"\0\0\0")
    with pytest.raises(ValueError, match="too few"):
        read_header(tmp_path / "x.safetensors")


def test_a_huge_header_is_never_read(tmp_path: Path) -> None:
    with open(tmp_path / "x.safetensors", "wb") as file:  # sparse: 30 GB that are not there
        file.write(struct.pack("<Q", 29 << 30))
        file.truncate(30 << 30)
    with pytest.raises(ValueError, match="the limit is"):
        read_header(tmp_path / "x.safetensors")


@settings(max_examples=200, deadline=None)
@given(
    raw=st.binary(max_size=200),
    values=st.recursive(st.none() | st.integers() | st.text(max_size=4), st.lists, max_leaves=6),
)
def test_any_bytes_end_in_tensors_or_a_value_error(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, values: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    for header, data in ((raw, b""), ({"w": {"dtype": "F32", "shape": values, "data_offsets": values}}, raw)):
        try:
            read_header(written(path, header, data))
        except ValueError:
            pass
