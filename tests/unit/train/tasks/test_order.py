"""One seed gives one order of examples: packed or not, whatever fits a micro-batch, on any number of ranks."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from remote_payload.settings.pretrain import PretrainSettings
from remote_payload.train.data.packing import Document
from remote_payload.train.distributed import World
from remote_payload.train.loop.step import MicroBatch
from remote_payload.train.tasks.packed_task import PackedTask
from remote_payload.train.tasks.rows import PackedRows, Rows, RowTask, TokenRows

DEVICE = torch.device("cpu")


@pytest.fixture
def draw() -> random.Random:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")  # pytest shows it when a test fails
    return random.Random(seed)


def documents(draw: random.Random, count: int, lengths: tuple[int, int]) -> list[Document]:
    """Each begins with its own number, so that it is known again in a packed row."""
    sizes = [draw.randint(*lengths) for _ in range(count)]
    return [Document([1000 + number] + [5] * (size - 1), [True] * size) for number, size in enumerate(sizes)]


def packed(
    documents: list[Document], batch: int, seed: int, max_length: int, rank: int = 0, ranks: int = 1
) -> PackedTask:
    world = World(rank, ranks, 0, DEVICE)
    return PackedTask(world, documents, [], batch=batch, max_length=max_length, seed=seed, dtype=torch.float32)


def rows_task(rows: Rows, batch: int, seed: int, rank: int = 0, ranks: int = 1) -> RowTask:
    settings = PretrainSettings(corpus="c", seed=seed)
    settings.batch.size = batch
    return RowTask(settings, World(rank, ranks, 0, DEVICE), rows, torch.float32, lambda model, size: {})


def numbers(batch: MicroBatch) -> list[int]:
    """The documents of a packed micro-batch, by the numbers that they begin with."""
    starts = batch.tensors["cu_seq_lens_q"][:-1].long()
    return [int(word) - 1000 for word in batch.tensors["input_ids"][0, starts]]


def test_a_step_has_the_same_documents_however_they_are_packed(draw: random.Random) -> None:
    """Packing happens inside a step: neither the length of a row nor the micro-batch nor the ranks move a document to another step."""
    for _ in range(30):
        count, batch, seed = draw.randint(1, 40), draw.randint(1, 9), draw.randrange(100)
        docs = documents(draw, count, (2, 30))
        plain = [step for epoch in (0, 1) for step in packed(docs, batch, seed, 30).steps(epoch, 0)]
        assert sorted(plain[0] + [number for step in plain[1:] for number in step]) == sorted([*range(count)] * 2)
        max_length, micro, ranks = draw.randint(30, 90), draw.randint(1, 4), draw.randint(1, 3)
        seen = [
            sorted(
                number
                for rank in range(ranks)
                for piece in packed(docs, batch, seed, max_length, rank, ranks).micro_batches(step, micro)
                for number in numbers(piece)
            )
            for step in plain
        ]
        assert seen == [sorted(step) for step in plain]


def test_rows_of_one_document_come_in_the_order_of_documents_that_are_packed(draw: random.Random) -> None:
    """The unpacked form of a task: as many rows as documents, each of one length, take the same places in the same steps."""
    for _ in range(30):
        count, batch, seed, length = draw.randint(4, 40), draw.randint(1, 4), draw.randrange(100), draw.randint(2, 20)
        docs = documents(draw, count, (length, length))
        unpacked = rows_task(TokenRows(np.array([document.ids for document in docs])), batch, seed)
        one_a_row = rows_task(PackedRows(docs, length), batch, seed)
        together = packed(docs, batch, seed, draw.randint(length, 5 * length))
        for epoch in range(3):
            whole = list(unpacked.steps(epoch, 0))  # its last step of an epoch is left out when it is smaller
            start = draw.randrange(len(whole))
            for task in (one_a_row, together):
                assert list(task.steps(epoch, 0))[: len(whole)] == whole
                assert list(task.steps(epoch, start))[: len(whole) - start] == whole[start:]
