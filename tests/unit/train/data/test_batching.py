from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_payload.train.data.batching import epoch_steps, split_by_padding


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=200), st.integers(1, 32), st.integers(0, 5), st.integers(0, 3)
)
def test_every_text_is_in_exactly_one_step_of_an_epoch(lengths: list[int], size: int, seed: int, epoch: int) -> None:
    steps = epoch_steps(lengths, size, seed, epoch)
    assert sorted(itertools.chain(*steps)) == list(range(len(lengths)))
    assert all(len(step) == size for step in steps[:-1])


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    lengths = [random.Random(1).randint(1, 300) for _ in range(500)]
    again = epoch_steps(lengths, 16, 3, 2)
    assert again == epoch_steps(lengths, 16, 3, 2)
    assert again != epoch_steps(lengths, 16, 3, 1)
    assert again != epoch_steps(lengths, 16, 4, 2)


def test_a_step_holds_texts_of_like_length_in_no_order_of_length() -> None:
    lengths = [random.Random(i).randint(1, 1000) for i in range(2048)]
    steps = epoch_steps(lengths, 16, 0, 0)
    spread = [max(lengths[i] for i in step) - min(lengths[i] for i in step) for step in steps]
    assert sum(spread) / len(spread) < 200, "random steps of 16 would spread over about 880"
    means = [sum(lengths[i] for i in step) / len(step) for step in steps]
    rises = sum(after > before for before, after in itertools.pairwise(means))
    assert 0.35 < rises / len(means) < 0.65


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(20, 400), st.integers(0, 40))
def test_the_split_is_the_cheapest_there_is(lengths: list[int], budget: int, overhead: int) -> None:
    lengths = sorted(lengths, reverse=True)

    def cost(cuts: list[tuple[int, int]]) -> int:
        return sum(lengths[start] * (end - start) + overhead for start, end in cuts)

    def allowed(cuts: list[tuple[int, int]]) -> bool:
        return all(lengths[start] * (end - start) <= budget or end - start == 1 for start, end in cuts)

    cheapest = None
    for pieces in range(len(lengths)):
        for inner in itertools.combinations(range(1, len(lengths)), pieces):
            edges = [0, *inner, len(lengths)]
            cuts = list(itertools.pairwise(edges))
            if allowed(cuts):
                cheapest = min(cost(cuts), cheapest if cheapest is not None else cost(cuts))
    ours = split_by_padding(lengths, budget, overhead)
    assert allowed(ours)
    assert [start for start, _ in ours] + [len(lengths)] == [0] + [end for _, end in ours], (
        "a text is lost or twice there"
    )
    assert cost(ours) == cheapest


@pytest.mark.parametrize(("lengths", "cuts"), [([], []), ([900], [(0, 1)]), ([100, 100, 10, 10], [(0, 2), (2, 4)])])
def test_small_cases(lengths: list[int], cuts: list[tuple[int, int]]) -> None:
    assert split_by_padding(lengths, budget=400, overhead=20) == cuts
