"""Rows of tokens as a training task: which rows make a step, what they hold, and what an evaluation says of them."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from remote_payload.train.data.packing import Document
from remote_payload.train.distributed import World
from remote_payload.train.errors import InputError
from remote_payload.train.model.causal import CausalLoss
from remote_payload.train.model.causal_files import load_network
from remote_payload.train.tasks.rows import PackedRows, RowTask, TokenRows, dealt_out

ALONE = World(0, 1, 0, torch.device("cpu"))


def settings(size=4, seed=0):
    return SimpleNamespace(seed=seed, batch=SimpleNamespace(size=size))


def rows_of(count, length=8):
    return TokenRows(np.random.default_rng(0).integers(4, 380, (count, length)).astype(np.uint16))


def task(rows, world=ALONE, **options):
    return RowTask(settings(**options), world, rows, torch.float32, lambda model, size: {})


def test_an_epoch_passes_each_row_once_in_an_order_of_its_own():
    work = task(rows_of(12))
    first, second = ([row for step in work.steps(epoch, 0) for row in step] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert first == [row for step in task(rows_of(12)).steps(0, 0) for row in step]
    assert first != [row for step in task(rows_of(12), seed=1).steps(0, 0) for row in step]


def test_an_epoch_goes_on_in_the_middle():
    work = task(rows_of(12))
    assert list(work.steps(3, 1)) == list(work.steps(3, 0))[1:]


def test_a_last_step_that_is_too_small_is_left_out_of_fixed_shapes_alone():
    assert task(rows_of(10)).steps_per_epoch == 2
    packed = PackedRows([Document([1, 2, 3], [True] * 3) for _ in range(10)], 3)
    assert task(packed).steps_per_epoch == 3
    assert len(list(task(packed).steps(0, 0))[-1]) == 2


def test_fewer_rows_than_a_step_needs_names_the_setting():
    with pytest.raises(InputError, match=r"settings\.batch\.size: 4 rows, but the data is 3"):
        task(rows_of(3))


def test_ranks_and_micro_batches_share_a_step_out_without_loss():
    rows = rows_of(8)
    seen = []
    for rank in range(3):
        world = World(rank, 3, rank, torch.device("cpu"))
        for micro in task(rows, world, size=8).micro_batches(list(range(8)), 2):
            assert len(micro.tensors["input_ids"]) <= 2
            seen += [tuple(row) for row in micro.tensors["input_ids"].tolist()]
    assert sorted(seen) == sorted(tuple(row) for row in rows.ids.tolist())


def test_a_row_predicts_each_next_token():
    micro = rows_of(2).collate([1])
    ids, targets = micro.tensors["input_ids"][0].tolist(), micro.tensors["targets"][0].tolist()
    assert targets[:-1] == ids[1:] and targets[-1] == -100
    assert micro.tokens == 8


def test_every_rank_takes_as_many_turns():
    for size, count in ((2, 7), (3, 0), (1, 1), (4, 8)):
        turns = [list(dealt_out(World(rank, 3, rank, torch.device("cpu")), range(count), size)) for rank in range(3)]
        assert len({len(turn) for turn in turns}) == 1
        assert sorted(index for turn in turns for piece in turn for index in piece) == list(range(count))


@pytest.mark.parametrize("name", ["gpt2", "olmo2"])
def test_validation_metrics_are_those_of_the_whole_logits(tiny_folder, name):
    network = load_network(str(tiny_folder(name)))
    rows = rows_of(7)
    found = task(rows).measure_rows(CausalLoss(network), rows, 5, 2)
    ids = torch.from_numpy(rows.ids[:5].astype(np.int64))
    with torch.no_grad():
        logits = network(input_ids=ids).logits[:, :-1].flatten(0, 1)
    targets = ids[:, 1:].flatten()
    loss = torch.nn.functional.cross_entropy(logits, targets).item()
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
    assert found["token_accuracy"] == pytest.approx((logits.argmax(-1) == targets).double().mean().item())


def test_packed_rows_hold_every_document_once_and_no_more_than_fits():
    documents = [Document(list(range(n)), [True] * n) for n in (5, 9, 3, 3, 7, 1, 2)]
    rows = PackedRows(documents, 10)
    assert sorted(rows.documents_of(range(len(rows)))) == list(range(7))
    assert max(rows.tokens(row) for row in range(len(rows))) == rows.tokens(rows.longest) == 10
    assert rows.collate([0, 1]).tokens == rows.tokens(0) + rows.tokens(1)
