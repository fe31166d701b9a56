"""The files are those that safetensors itself writes, byte by byte, and their sha256 is that of the file."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from remote_payload.train.files import sha256_of
from remote_payload.train.state.tensor_file import DTYPES, file_order, header, in_pieces, size_of, write_pieces


def drawn(chance: random.Random) -> dict[str, Tensor]:
    """Tensors of any dtype and shape, scalars, empty and transposed ones among them."""
    tensors = {}
    for _ in range(chance.randint(0, 12)):
        name = "".join(chance.choices('abé./"_0', k=6))
        shape = [chance.choice((0, 1, 2, 3, 7, 40)) for _ in range(chance.randint(0, 3))]
        tensor = (torch.rand(shape) * 100).to(chance.choice(list(DTYPES)))
        tensors[name] = tensor.t() if tensor.dim() == 2 and chance.random() < 0.5 else tensor
    return tensors


def fresh(size: int) -> Callable[[], Tensor]:
    return lambda: torch.empty(size, dtype=torch.uint8)


@pytest.mark.parametrize("seed", range(60))
def test_any_tensors_in_pieces_of_any_size(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    tensors, size = drawn(chance), chance.choice((1, 3, 64, 1000, 1 << 20))
    pieces = list(in_pieces((tensors[name] for name in file_order(tensors)), fresh(size)))
    assert all(len(piece) == size for piece in pieces[:-1]) and sum(map(len, pieces)) == size_of(tensors.values())
    sha256 = write_pieces(tmp_path / "ours", header(tensors), pieces)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "theirs")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert sha256 == sha256_of(tmp_path / "ours")
    found = load_file(tmp_path / "ours")
    facts = [{name: (each.dtype, each.shape) for name, each in file.items()} for file in (found, tensors)]
    assert facts[0] == facts[1]


def test_a_single_buffer_serves_where_each_piece_is_written_before_the_next() -> None:
    tensors = {"a": torch.arange(10.0), "b": torch.arange(7)}
    one = torch.empty(5, dtype=torch.uint8)
    content = b"".join(
        piece.numpy().tobytes() for piece in in_pieces((tensors[name] for name in file_order(tensors)), lambda: one)
    )
    assert content == tensors["b"].numpy().tobytes() + tensors["a"].numpy().tobytes()
