import math

import pytest
import torch
import torch.nn.functional as F

from remote_payload.train.data.packing import IGNORED, Document
from remote_payload.train.distributed import World
from remote_payload.train.model.causal import CausalLoss
from remote_payload.train.tasks.packed_task import PackedTask
from tests.support.models.tiny_models import tiny_model

LENGTHS = [3, 9, 30, 4, 17, 8, 22, 5, 12, 6, 11]


def documents():
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(4, 384, (length,), generator=generator).tolist() for length in LENGTHS]
    return [Document(each, [index > 1 for index in range(len(each))]) for each in ids]


def make_task(rank=0, size=1, **changes):
    options = {"batch": 4, "max_length": 32, "seed": 7, "dtype": torch.float32, **changes}
    world = World(rank, size, rank, torch.device("cpu"))
    return PackedTask(world, documents(), documents()[:5], **options)


def make_model():
    network = tiny_model("qwen2")
    network.set_attn_implementation("gpurun_packed")
    return CausalLoss(network)


def test_the_order_is_a_function_of_seed_and_epoch_and_every_document_comes_once():
    task = make_task()
    assert task.steps_per_epoch == 3
    first = list(task.steps(0, 0))
    assert sorted(index for step in first for index in step) == list(range(11))
    assert [len(step) for step in first] == [4, 4, 3]
    assert list(make_task().steps(0, 0)) == first
    assert list(task.steps(0, 2)) == first[2:]
    assert list(task.steps(1, 0)) != first
    assert list(make_task(seed=8).steps(0, 0)) != first


@pytest.mark.parametrize("size", [1, 2, 4])
def test_micro_batches_of_any_size_hold_the_step_and_no_more_tokens_than_allowed(size):
    task = make_task()
    (step, *_) = task.steps(0, 0)
    micros = task.micro_batches(step, size)
    assert sum(micro.tokens for micro in micros) == sum(LENGTHS[index] for index in step)
    assert all(micro.tokens <= size * 32 for micro in micros)
    assert all(micro.tensors["input_ids"].shape == (1, micro.tokens) for micro in micros)


def test_the_gradient_of_a_step_depends_neither_on_the_micro_batch_nor_on_the_ranks():
    def gradient(size, ranks):
        model = make_model()
        (step, *_) = make_task().steps(0, 0)
        for rank in range(ranks):
            task = make_task(rank, ranks)
            for micro in task.micro_batches(step, size):
                task.loss(model, micro)[0].backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    whole = gradient(4, 1)
    for size, ranks in ((1, 1), (4, 2), (1, 3)):
        torch.testing.assert_close(gradient(size, ranks), whole, rtol=1e-4, atol=1e-5)


def test_the_heaviest_micro_batch_is_as_large_as_any_can_be():
    task = make_task()
    assert task.heaviest(1).tokens == 32
    for epoch in range(20):
        for step in task.steps(epoch, 0):
            for size in (1, 2, 4):
                assert all(m.tokens <= task.heaviest(size).tokens for m in task.micro_batches(step, size))


@pytest.mark.parametrize("size", [1, 4])
def test_evaluation_is_the_mean_over_all_tokens_that_count_whatever_the_batch(size):
    task, model = make_task(), make_model()
    result = task.evaluate(model, size)
    losses, right, count = 0.0, 0, 0
    for document in documents()[:5]:
        logits = model.network(input_ids=torch.tensor([document.ids])).logits[0]
        targets = torch.tensor(document.targets)
        losses += F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum").item()
        right += int(((logits.argmax(-1) == targets) & (targets != IGNORED)).sum())
        count += int((targets != IGNORED).sum())
    assert result["loss"] == pytest.approx(losses / count, rel=1e-5)
    assert result["perplexity"] == pytest.approx(math.exp(losses / count), rel=1e-4)
    assert result["token_accuracy"] == pytest.approx(right / count)


@pytest.mark.stand_in
def test_evaluation_that_runs_out_of_memory_goes_on_with_smaller_batches():
    class SmallDevice(CausalLoss):
        def forward(self, input_ids, targets, **inputs):
            if input_ids.shape[1] > 40:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(input_ids, targets, **inputs)

    task, model = make_task(), make_model()
    expected = task.evaluate(model, 4)
    assert task.evaluate(SmallDevice(model.network), 4) == pytest.approx(expected, rel=1e-6)
