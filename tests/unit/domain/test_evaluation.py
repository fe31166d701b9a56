"""Comparing evaluations: the interval, who gained and lost, and what is worse than allowed."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from remote_payload.recipes.evaluated import Column, Confusion, Evaluation
from remote_payload.settings.evaluate import METRICS, is_more_better
from runner.domain.answers.reading import Impossible
from runner.domain.evaluation.compare import bootstrap_interval, compare
from runner.domain.evaluation.read import Example, read_evaluation, read_examples
from runner.domain.evaluation.regression import Tolerance, uncompared, unknown_metrics, worse_metrics
from runner.domain.evaluation.tables import as_markdown, metric_rows


def column(name: str = "tuned", **changes: object) -> Column:
    made = Column(name, name, False, "", "causal_lm", "cpu", "float32", "examples/01-x.jsonl", {"loss": 1.0})
    return replace(made, **changes)  # type: ignore[arg-type]


def evaluation(*columns: Column) -> Evaluation:
    return Evaluation("test.jsonl", "a" * 64, 2, list(columns), {"seed": 0})


def random_examples(draw: random.Random, count: int) -> list[Example]:
    """Examples with some of three metrics each; two lists with the same seed have the same ids."""
    found = []
    for number in range(count):
        metrics = {name: draw.choice([0.0, 0.5, 1.0]) for name in ("json_exact", "loss") if draw.random() < 0.9}
        found.append(Example(f"d:{number}", "", "?", (), ("!",), {**metrics, "length/mean": 3.0}))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_a_comparison_turned_round_says_the_opposite(seed: int) -> None:
    draw = random.Random(seed)
    ones, others = random_examples(draw, 30), random_examples(draw, 25)
    draw.shuffle(others)
    there, back = compare(ones, others), compare(others, ones)
    assert {each.metric for each in there} == {"json_exact", "loss"}
    by_name = {each.metric: each for each in back}
    known = {each.id: each for each in others}
    for each in there:
        other = by_name[each.metric]
        assert each.mean == pytest.approx(-other.mean) and each.examples == other.examples <= 25
        assert set(each.better) == set(other.worse) and set(each.worse) == set(other.better)
        gains = {
            one.id: (one.metrics[each.metric] - known[one.id].metrics[each.metric])
            * (1 if each.metric != "loss" else -1)
            for one in ones
            if one.id in known and each.metric in one.metrics and each.metric in known[one.id].metrics
        }
        assert set(each.better) == {name for name, gain in gains.items() if gain > 0}
        assert set(each.worse) == {name for name, gain in gains.items() if gain < 0}
        assert each.low <= each.mean <= each.high
    assert there == compare(ones, others)


def test_a_model_beside_itself_differs_in_nothing() -> None:
    ones = random_examples(random.Random(3), 40)
    assert all(
        (each.mean, each.low, each.high) == (0, 0, 0) and not each.better + each.worse for each in compare(ones, ones)
    )


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    """Of 200 samples of 60 differences with mean 0.1: 95 % with a deviation of 1.5 %, the bootstrap's own bias aside."""
    draw = random.Random(0)
    hits = 0
    for seed in range(200):
        low, high = bootstrap_interval([draw.gauss(0.1, 1.0) for _ in range(60)], seed, resamples=400)
        hits += low <= 0.1 <= high
    assert 178 <= hits <= 199


@pytest.mark.parametrize("seed", range(30))
def test_worse_is_what_lost_more_than_the_tolerance(seed: int) -> None:
    draw = random.Random(seed)
    names = draw.sample(sorted(METRICS), 6)
    ones, others = ({name: round(draw.random(), 3) for name in names} for _ in range(2))
    allowed = Tolerance(0.2, {names[0]: 0.5, "latency/median_ms": 5.0})
    times = {"latency/median_ms": 10.0, "latency/max_ms": 10.0, "latency/tokens_per_second": 5.0}
    slow = {"latency/median_ms": 20.0, "latency/max_ms": 90.0, "latency/tokens_per_second": 1.0}
    found = worse_metrics([column(metrics=ones | slow)], [column("old", metrics=others | times)], allowed)
    lost = {name: (others[name] - ones[name]) * (1 if METRICS[name] else -1) for name in names}
    expected = {name for name in names if lost[name] > (0.5 if name == names[0] else 0.2) + 1e-6}
    assert {each.metric for each in found} == expected | {"latency/median_ms"}


def test_a_base_is_not_judged_and_a_cell_is_held_against_its_own_cell() -> None:
    old = [
        column("old cold", asking="cold", metrics={"right": 0.9}),
        column("old warm", asking="warm", metrics={"right": 0.2}),
    ]
    new = [
        column("new cold", asking="cold", metrics={"right": 0.8}), column("new warm", asking="warm", metrics={"right": 0.3}),
        column("base of new cold", base=True, asking="cold", metrics={"right": 0.0}),
    ]  # fmt: skip
    (worse,) = worse_metrics(new, old, Tolerance())
    assert (worse.column, worse.against) == ("new cold", "old cold")


def test_a_column_that_nothing_can_be_compared_of_is_named() -> None:
    """It would pass every regression test."""
    old = [column("old warm", asking="warm"), column("old cold", asking="cold")]
    new = [
        column("a", asking="warm"),
        column("b", asking="hot"),
        column("c", asking="cold", metrics={"length/mean": 1.0}),
    ]
    assert uncompared(new, old, Tolerance()) == ["b", "c"]
    assert uncompared([column("d", asking="hot")], old[:1], Tolerance()) == []


def test_names_that_cannot_be_held_to_are_told() -> None:
    there = [column(metrics={"loss": 1.0, "length/mean": 3.0, "latency/median_ms": 2.0, "sets/right": 1.0})]
    asked = Tolerance(0, dict.fromkeys(["loss", "length/mean", "latency/median_ms", "json_exact", "sets/right"], 1.0))
    assert unknown_metrics(asked, there) == ["length/mean", "json_exact"]
    assert is_more_better("sets/loss") is False and is_more_better("binary_f1_3") is True


def test_the_summary_reads_back_and_a_damaged_one_is_refused() -> None:
    matrix = Confusion(["a", "b"], [[1, 0], [2, 3]])
    found = evaluation(column(sets={"one": {"loss": 1.0}}), column("base", base=True, confusion=matrix))
    written = json.loads(json.dumps(found.as_json()))
    assert read_evaluation(written) == found
    for path, wrong in (("format", 2), ("sha256", "../x"), ("examples", -1), ("columns", [{"name": "x"}])):
        with pytest.raises(Impossible):
            read_evaluation({**written, path: wrong})
    written["columns"][0]["rows"] = "examples/../../secret.jsonl"
    with pytest.raises(Impossible, match="rows"):
        read_evaluation(written)


def test_a_damaged_example_is_named_by_its_line() -> None:
    good = json.dumps({"id": "a:1", "set": "", "prompt": "?", "right": [], "answers": [], "metrics": {"loss": None}})
    assert read_examples([good])[0].metrics == {}
    with pytest.raises(Impossible, match="line 2"):
        read_examples([good, good[:-4]])


def test_the_markdown_has_no_html_and_no_text_leaves_its_block() -> None:
    evil = "</td><script>x</script>\n```\n# title\x1b[31m | `a`"
    row = Example("a|<b>:1", "", evil, (evil,), (evil,), {"right": 1.0})
    text = as_markdown(evaluation(column(evil)), {evil: [row]})
    outside, inside = [], False
    for line in text.splitlines():
        if line.startswith("````"):
            inside = not inside
        elif not inside:
            outside.append(line)
    assert "\x1b" not in text and not inside
    assert not any("<" in line.replace("\\<", "") or line == "# title" for line in outside)


def test_the_table_has_a_row_for_each_metric() -> None:
    rows = metric_rows([column(), column("two", metrics={"json_exact": 0.5, "memory/peak_bytes": 2e9})])
    assert [row[0] for row in rows] == ["loss", "json_exact", "memory/peak_bytes"]
    assert [row[1:] for row in rows] == [["1.0000", "-"], ["-", "0.5000"], ["-", "2.0 GB"]]
