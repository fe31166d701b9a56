"""Real output of real programs, and what is read of it: ``logs/`` has it byte for byte, each file with its versions in the first line."""

from pathlib import Path

import pytest

from remote_payload.agent.run.progress.parser import Parser, one_a_step

LOGS = Path(__file__).with_name("logs")


def read(name, *written):
    """Steps with their fields, in order, and evaluations as (name, step, metrics)."""
    parser = Parser(written or ("auto",))
    seen = one_a_step([*parser.feed((LOGS / name).read_bytes()), *parser.rest()])
    steps = [each.told.step for each in seen]
    return steps, [
        (each.told.name, each.told.step.get("step"), each.told.evaluation) for each in seen if each.told.evaluation
    ]


def places(steps):
    return [(step["step"], step["total"]) for step in steps]


def losses(steps):
    return {step["step"]: step["loss"] for step in steps if "loss" in step}


@pytest.mark.parametrize("written", ["auto", "trainer"])
def test_the_trainers_lines_have_the_step_of_the_bar_behind_them(written):
    steps, evaluations = read("trainer-bar.log", written)
    assert places(steps) == [(step, 24) for step in range(5 if written == "auto" else 1, 25)]
    assert losses(steps) == {5: 3.034, 10: 3.032, 15: 3.035, 20: 3.032}
    assert evaluations == [("eval", step, {"loss": 3.027}) for step in (10, 20, 24)]
    twentieth = next(step for step in steps if step["step"] == 20)
    assert (twentieth["lr"], twentieth["grad_norm"], twentieth["epoch"]) == (1.042e-05, 1.505, 1.667)


def test_the_trainers_lines_of_version_4_are_read_too():
    steps, evaluations = read("trainer-4-bar.log")
    assert losses(steps) == {5: 3.467, 10: 3.4657, 15: 3.4683, 20: 3.4646}
    assert [(name, step) for name, step, _ in evaluations] == [("eval", 10), ("eval", 20)]
    assert evaluations[0][2] == {"loss": 3.459296226501465}


def test_without_a_bar_the_trainers_lines_have_a_loss_and_an_epoch_but_no_step():
    steps, evaluations = read("trainer-plain.log")
    assert [(step.get("step"), step["loss"], step["epoch"]) for step in steps if "loss" in step] == [
        (None, 3.034, 0.4167), (None, 3.032, 0.8333), (None, 3.035, 1.25), (None, 3.032, 1.667),
    ]  # fmt: skip
    assert {step for _, step, _ in evaluations} == {None}


def test_lightnings_epochs_are_counted_on_and_no_total_is_claimed_that_it_does_not_print():
    for written in ("auto", "lightning"):
        steps, evaluations = read("lightning-tqdm.log", written)
        assert places(steps) == [(step, None) for step in range(4, 61, 4)]
        assert steps[-1]["epoch"] == 3.0
        assert losses(steps)[8] == 0.187 and losses(steps)[20] == 0.174 and losses(steps)[60] == 0.0495
        assert evaluations == [
            ("val", 20, {"loss": 0.203}),
            ("val", 40, {"loss": 0.118}),
            ("val", 60, {"loss": 0.0699}),
        ]


def test_richs_bar_writes_nothing_to_a_file_until_the_end():
    assert read("lightning-rich.log", "lightning") == ([], [])


def test_tqdm_with_the_epoch_before_the_bar():
    steps, _ = read("tqdm-epochs.log")
    assert places(steps)[-1] == (120, 120)
    assert all(total == 120 for _, total in places(steps))
    assert [step for step, _ in places(steps)] == sorted({step for step, _ in places(steps)})
    assert steps[-1]["loss"] == 1.61 and steps[-1]["lr"] == 3e-4 and steps[-1]["epoch"] == 3.0


def test_tqdm_with_a_bar_of_the_epochs_around_it():
    steps, _ = read("tqdm-nested.log")
    assert places(steps)[0][1] == 120 and places(steps)[-1] == (120, 120)
    assert [step for step, _ in places(steps)] == sorted({step for step, _ in places(steps)})


def test_bars_of_data_and_downloads_are_no_steps():
    steps, _ = read("tqdm-one.log")
    assert places(steps)[0] == (10, 1200) and places(steps)[-1] == (1200, 1200)
    assert losses(steps)[1200] == 1.81
    assert steps[0]["ms"] == 1.022


@pytest.mark.parametrize("written", ["auto", "nanogpt"])
def test_nanogpt(written):
    steps, evaluations = read("nanogpt.log", written)
    assert places(steps) == [(step, 40) for step in range(0, 41, 10)]
    assert losses(steps) == {0: 4.2, 10: 3.0094, 20: 2.1564, 30: 1.5451, 40: 1.1071}
    assert steps[1]["ms"] == 45.12 and steps[1]["mfu"] == 0.1235 and "mfu" not in steps[0]
    assert evaluations == [
        ("val", 0, {"loss": 4.3, "train_loss": 4.2}),
        ("val", 20, {"loss": 2.4283, "train_loss": 2.1564}),
        ("val", 40, {"loss": 1.3713, "train_loss": 1.1071}),
    ]


def test_other_programs_whose_lines_begin_with_the_step():
    steps, _ = read("others.log")
    assert steps == [
        {"step": 10, "total": 2000, "loss": 9.412345, "lrm": 1.0, "ms": 33.12, "tokens_per_second": 15000, "mfu": 0.032,
         "total_time": 0.01},
        {"step": 20, "total": 2000, "loss": 8.1, "train_time": 500, "ms": 25.0},
        {"step": 30, "total": None, "loss": 3.319, "accuracy": 0.427},
        {"step": 40, "total": 2000, "loss": 2.5, "lr": 0.0003},
        {"step": 46, "total": 68, "epoch": 1.35, "loss": 0.0046, "lr": 2.8e-4, "grad_norm": 0.05, "tokens_per_second": 1904, "ms": 573},
    ]  # fmt: skip


ORDINARY = b"""Downloading shards: 100%|##########| 3/3 [00:10<00:00,  3.40s/it]
Loading checkpoint shards:  33%|###       | 1/3 [00:01<00:02,  1.00s/it]
Map:  50%|#####     | 500/1000 [00:01<00:01, 480.00 examples/s]
 40%|####      | 4/10 [00:01<00:02,  2.00it/s]
model.safetensors:  10%|#         | 100M/1.00G [00:01<00:09, 100MB/s]
Step 1: clone the repository. Step 2: run it, no loss of data
iteration 3 of the design
step 4
{'loss': 'unknown', 'epoch': 'first'}
{'a': 1, 'b': 2}
Evaluating:  40%|####      | 4/10 [00:01<00:02,  2.00it/s]
100% done, 3/4 [ok]
"""


def test_nothing_in_ordinary_output_looks_like_a_step():
    parser = Parser(["auto"])
    assert [*parser.feed(ORDINARY), *parser.rest()] == []


@pytest.mark.parametrize(
    ("patterns", "log", "step", "evaluation"),
    [
        ([r"it=(?P<step>\d+) of (?P<total>\d+) L=(?P<loss>\S+)"], "it=3 of 9 L=2.5e-1\n", {"step": 3, "total": 9, "loss": 0.25}, {}),
        ([r"it=(?P<step>\d+)", r"(?P<total>\d+) updates"], "7 updates\nit=3\n", {"step": 3, "total": 7}, {}),
        ([r"(?P<step>\d+):(?P<steps_per_second>\S+)"], "4:2.5\n", {"step": 4, "total": None, "ms": 400.0}, {}),
        ([r"(?P<step>\d+);(?P<seconds_per_step>\S+);(?P<F1>\S+)"], "4;2;0.5\n", {"step": 4, "total": None, "ms": 2000, "f1": 0.5}, {}),
        ([r"s(?P<step>[\d,]+)", r"V(?P<val_loss>\S+)"], "s1,024\nV0.5\n", {"step": 1024}, {"loss": 0.5}),
        ([r"s(?P<step>\S+) (?P<loss>\S+)"], "s5 nan\n", {"step": 5, "total": None, "loss": None}, {}),
    ],
)  # fmt: skip
def test_patterns_of_ones_own(patterns, log, step, evaluation):
    seen = list(Parser(patterns).feed(log.encode()))
    assert (seen[-1].told.step, seen[-1].told.evaluation) == (step, evaluation)


def test_off_reads_nothing():
    assert list(Parser(["off"]).feed((LOGS / "nanogpt.log").read_bytes())) == []
