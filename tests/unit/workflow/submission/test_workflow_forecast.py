"""What is predicted of a recipe's memory and disk, from its job file and the model's config.json, and what is refused by it."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from remote_payload.forecast.accuracy import FULL_TRAINING, LORA
from remote_payload.forecast.architecture import Architecture
from remote_payload.forecast.memory import TrainingShape, forecast_memory
from runner import hub
from runner.domain.answers.box import Box, Gpu
from runner.domain.errors import BoxNotReady, HostError
from runner.domain.job import Job
from runner.domain.progress import Silent
from runner.jobfile import load
from runner.workflow.submission.checks import Finding
from runner.workflow.submission.forecast import ATTENTION, cards_of, predict
from runner.workflow.submission.models import Models, key_of, read_models, runs_with_forecast
from runner.workflow.submission.remedies import ways_to_fit
from runner.workflow.submission.verdicts import judge, tell

OLMO_7B = {
    "model_type": "olmo2",
    "vocab_size": 100_352,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
GIB = 1 << 30
Finetune = Callable[..., Job]


def box(
    *memory: float, disk: int = 1000, ram: int = 500, ram_free: int | None = None, held: tuple[int, ...] = ()
) -> Any:
    """As far as a forecast looks at it: GPUs of so many GiB, of which runs hold some, disk and RAM."""
    cards = (
        Gpu(number, "H100", f"GPU-{number}", int(size * GIB), 0, "a-run" if number in held else None)
        for number, size in enumerate(memory or (80,))
    )
    free = ram if ram_free is None else ram_free
    return SimpleNamespace(gpus=tuple(cards), disk_free=disk * GIB, ram=ram * GIB, ram_free=free * GIB)


def forecast(job: Job, where: Box, *jobs: Job, brief: bool = False, despite: bool = False) -> dict[str, Finding]:
    """The findings by what they are about."""
    runs = runs_with_forecast([job, *jobs])
    return {each.what: each for each in judge(runs, where, read_models(runs), brief=brief, despite=despite).findings}


@pytest.fixture
def finetune(tmp_path: Path) -> Finetune:
    def write(**fields: Any) -> Job:
        (tmp_path / "data" / "olmo").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "olmo" / "config.json").write_text(json.dumps(OLMO_7B))
        (tmp_path / "data" / "set.json").write_text("{}")
        settings = {
            "model": "data/olmo",
            "dataset": "data/set.json",
            "weights": "bf16",
            "batch": {"size": 8, "micro": 1, "activation_checkpointing": True},
            "checkpoint": {"every_epochs": 0.2, "at_start": True, "keep": None, "resumable": 1},
        }
        body = {"name": "mayors", "recipe": "finetune", "data": ["data"], **fields}
        body["settings"] = {**settings, **fields.get("settings", {})}
        (tmp_path / "job.yaml").write_text(json.dumps(body))
        return load(tmp_path / "job.yaml")

    return write


@pytest.fixture
def sft(tmp_path: Path) -> Finetune:
    def write(**settings: Any) -> Job:
        (tmp_path / "train.jsonl").write_text("{}\n")
        body = {"model": "allenai/OLMo-2-1124-7B", "train": "train.jsonl", "batch": {"size": 8, "micro": 4}, **settings}
        job = {"name": "talk", "recipe": "sft", "data": ["train.jsonl"], "settings": body}
        (tmp_path / "sft.yaml").write_text(json.dumps(job))
        return load(tmp_path / "sft.yaml")

    return write


def needed(job: Job, where: Box) -> int:
    """What the job needs on each GPU, in bytes."""
    (run,) = runs_with_forecast([job])
    model = read_models([run])[key_of(run)]
    assert isinstance(model, Architecture)
    return predict(run, where, model, [run]).memory.total


def test_olmo_7b_in_bf16_fits_80_gb_and_in_fp32_it_does_not(finetune: Finetune) -> None:
    fits = forecast(finetune(), box())["VRAM forecast"]
    assert fits.verdict == "ok" and "with micro-batch 1 of effective 8" in fits.said
    too_much = forecast(finetune(settings={"weights": "fp32"}), box())["VRAM forecast"]
    assert too_much.verdict == "fail" and "GPU 0, H100, has 80 GiB" in too_much.said


@pytest.mark.parametrize("error", [FULL_TRAINING, LORA])
def test_a_run_is_refused_where_it_exceeds_the_card_by_more_than_the_stated_error(
    finetune: Finetune, sft: Finetune, monkeypatch: pytest.MonkeyPatch, error: float
) -> None:
    monkeypatch.setattr(hub, "fetch_config", lambda model, revision=None: OLMO_7B)
    job = finetune() if error == FULL_TRAINING else sft()
    need = needed(job, box(2000)) / GIB
    for share, verdict in (
        (1.001, "ok"),
        (0.999, "warn"),
        (1.002 / (1 + error), "warn"),
        (0.998 / (1 + error), "fail"),
    ):
        found = forecast(job, box(need * share))["VRAM forecast"]
        assert found.verdict == verdict, share
        assert (verdict == "ok") == ("off at most" not in found.said)
        assert ("--despite-forecast" in found.hint) == (verdict == "fail")
        assert f"{error:.0%}" in found.said or verdict == "ok"
    assert forecast(job, box(need / 2), despite=True)["VRAM forecast"].verdict == "warn"


def test_an_automatic_micro_batch_is_judged_by_one_row_where_nothing_fits(finetune: Finetune) -> None:
    auto = finetune(settings={"batch": {"size": 8, "micro": "auto", "activation_checkpointing": True}})
    alone = needed(finetune(), box()) / GIB
    assert "with micro-batch 1 " in forecast(auto, box(alone * 1.01))["VRAM forecast"].said
    assert forecast(auto, box(alone * 1.01))["VRAM forecast"].verdict == "ok"
    assert forecast(auto, box(alone * 0.8))["VRAM forecast"].verdict == "fail"


def test_the_cards_are_those_that_the_runs_may_get(finetune: Finetune) -> None:
    def index(where: Box, runs: int = 1, **resources: Any) -> list[int]:
        return [gpu.index for gpu in cards_of(finetune(resources={"gpus": 1, **resources}), where, runs)]

    mixed = box(24, 80, 80, 48)
    assert index(mixed) == [0] and index(mixed, gpus=2) == [0, 1] and index(mixed, gpus="all") == [0, 1, 2, 3]
    assert index(mixed, runs=3) == [0, 1, 2]
    assert index(box(24, 80, 80, 48, held=(0, 1))) == [2]
    assert index(box(24, 80, 80, 48, held=(0, 1, 2)), gpus=2) == [0, 1, 2, 3]  # it waits, and may get any
    crowded = SimpleNamespace(gpus=(replace(mixed.gpus[0], memory_used=5 * GIB), *mixed.gpus[1:]))
    assert index(crowded) == [1]


def test_what_would_make_it_fit_does_by_the_same_forecast(finetune: Finetune) -> None:
    """Random shapes and cards: every way that is offered for one fits it, and where there is none, no single switch does."""
    model = Architecture.from_config(OLMO_7B)
    chance = random.Random(7)
    offered = 0
    for _ in range(200):
        micro, length = chance.choice([1, 2, 4]), chance.choice([512, 2048, 8192])
        shape = TrainingShape(micro, length, chance.choice(["float32", "bfloat16"]))
        settings = {
            "max_length": length, "shard": False, "weights": "fp32" if shape.weights == "float32" else "bf16",
            "batch": {"micro": micro}, **({"lora": {"rank": 0}} if chance.random() < 0.5 else {}),
        }  # fmt: skip
        capacity = int(chance.uniform(10, 150) * GIB)
        ways = ways_to_fit(model, shape, settings, capacity, 8, ATTENTION)
        offered += len(ways)
        assert all(float(re.findall(r"\(([\d.]+) GiB\)$", way)[0]) * GIB <= capacity + GIB // 10 for way in ways)
        checkpointing = forecast_memory(model, replace(shape, checkpoint_activations=True)).total
        if checkpointing <= capacity:
            assert any(way.startswith("settings.batch.activation_checkpointing: true (") for way in ways)
    assert offered > 100


def test_a_refusal_offers_settings_that_the_recipe_has_and_larger_cards(finetune: Finetune) -> None:
    plain = {"weights": "fp32", "batch": {"size": 8, "micro": 4}}
    hint = forecast(finetune(settings=plain), box(*[80] * 8))["VRAM forecast"].hint
    assert "settings.shard: true with resources.gpus: 8" in hint and "lora" not in hint
    assert re.search(r"Or take a GPU with 2\d\d GiB", hint)
    tiny = forecast(finetune(settings=plain), box(4))["VRAM forecast"].hint
    assert tiny.startswith("No setting makes it fit.")


def test_the_runs_of_a_submission_are_told_once_for_each_shape_and_refused_together(finetune: Finetune) -> None:
    told: list[str] = []
    report = SimpleNamespace(
        **{name: getattr(Silent(), name) for name in ("stage", "update")}, note=told.append, warn=told.append
    )
    swept = {"sweep": {"settings.seed": [0, 1, 2], "settings.max_length": [512, 1024]}}
    runs = runs_with_forecast([finetune(**swept)])
    tell(runs, box(), read_models(runs), report, despite=False)
    assert [line.partition(":")[0] for line in told if "VRAM" in line] == [
        "VRAM forecast of mayors-max-length-512-seed-0",
        "VRAM forecast of mayors-max-length-1024-seed-0",
    ]
    for_the_first = box(needed(finetune(settings={"max_length": 512}), box()) * 1.01 / GIB)
    runs = runs_with_forecast([finetune(sweep={"settings.max_length": [512, 32768]})])
    with pytest.raises(BoxNotReady, match=r"^VRAM forecast of mayors-max-length-32768: .*optimizer") as error:
        tell(runs, for_the_first, read_models(runs), report, despite=False)
    assert error.value.meaning == "Nothing was pushed or started." and "--despite-forecast" in error.value.hint
    tell(runs, for_the_first, read_models(runs), report, despite=True)


def test_the_ram_of_runs_that_train_at_once_is_counted(finetune: Finetune) -> None:
    seeds = {"sweep": {"settings.seed": list(range(8))}, "queue": True}
    one = forecast(finetune(), box(ram=100))["RAM forecast"]
    assert one.verdict == "ok" and re.search(r"^43\.\d GiB \(processes 2.5, checkpoint being saved 40.8", one.said)
    eight = forecast(finetune(**seeds), box(*[80] * 8, ram=250))["RAM forecast"]
    assert eight.verdict == "fail" and "for 8 runs at once, 43." in eight.said and "the box has 250 GiB" in eight.said
    assert "5 runs at once fit" in eight.hint and "--despite-forecast" in eight.hint
    two = forecast(finetune(**seeds), box(80, 80, ram=250))["RAM forecast"]
    assert two.verdict == "ok" and "for 2 runs at once" in two.said
    busy = forecast(finetune(), box(ram=100, ram_free=20))["RAM forecast"]
    assert busy.verdict == "warn" and "20 free now" in busy.said


def test_a_submission_is_told_of_ram_and_disk_only_where_they_are_not_plentiful(finetune: Finetune) -> None:
    assert set(forecast(finetune(), box(), brief=True)) == {"VRAM forecast"}
    assert set(forecast(finetune(), box(ram=60), brief=True)) == {"VRAM forecast", "RAM forecast"}
    assert set(forecast(finetune(), box(disk=100), brief=True)) == {"VRAM forecast", "disk forecast"}


def test_the_disk_of_a_whole_sweep_is_counted(finetune: Finetune) -> None:
    sweep = {"settings.epochs": [1, 5], "settings.seed": [0, 1, 2, 3, 4]}
    alone = forecast(finetune(), box())["disk forecast"]
    all_ten = forecast(finetune(sweep=sweep), box())["disk forecast"]
    assert alone.verdict == "ok" and "6 checkpoints of 13.6 GiB, 1 of them resumable" in alone.said
    assert all_ten.verdict == "warn" and "10 runs, 160 checkpoints" in all_ten.said
    assert float(all_ten.said.split(" GiB")[0].replace(",", "")) == pytest.approx(160 * 13.6 + 10 * 3 * 13.6, rel=0.01)


def test_of_an_experiment_only_so_many_runs_count_as_the_job_keeps_and_those_that_train(finetune: Finetune) -> None:
    sweep = {"settings.epochs": [1, 5], "settings.seed": [0, 1, 2, 3, 4]}
    one_gpu = forecast(finetune(sweep=sweep, keep_finished=1), box())["disk forecast"]
    two_gpus = forecast(finetune(sweep=sweep, keep_finished=2), box(80, 80))["disk forecast"]
    # One run of 6 checkpoints and one of 26 stay, beside one of 26 that trains; then two of each, beside two of 26.
    assert "3 runs of 10 together (keep_finished), 58 checkpoints" in one_gpu.said
    assert "6 runs of 10 together (keep_finished), 116 checkpoints" in two_gpus.said


def test_a_retention_rule_is_counted_as_it_says(finetune: Finetune) -> None:
    rule = {"checkpoint": {"every_epochs": 0.2, "keep": 2}}
    assert (
        "3 checkpoints of 13.6 GiB, 3 of them resumable"
        in forecast(finetune(settings=rule), box())["disk forecast"].said
    )


def test_a_model_from_nothing_is_forecast_from_its_shape(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("x")
    body = {"name": "london", "recipe": "pretrain", "data": ["corpus.txt"], "settings": {"corpus": "corpus.txt"}}
    (tmp_path / "job.yaml").write_text(json.dumps(body))
    found = forecast(load(tmp_path / "job.yaml"), box(24))
    assert found["VRAM forecast"].verdict == "ok" and "optimizer 0.8" in found["VRAM forecast"].said
    assert "4 checkpoints of 0.4 GiB" in found["disk forecast"].said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (HostError("the hub cannot be reached"), "not possible: the hub cannot be reached"),
        ({"model_type": "mamba"}, "not possible: no formula for model_type 'mamba'"),
    ],
)
def test_a_model_without_a_forecast_is_one_line_and_no_refusal(
    sft: Finetune, monkeypatch: pytest.MonkeyPatch, answer: HostError | dict[str, object], said: str
) -> None:
    asked: list[str] = []

    def fetch_config(model: str, revision: str | None = None) -> dict[str, object]:
        asked.append(model)
        if isinstance(answer, HostError):
            raise answer
        return answer

    monkeypatch.setattr(hub, "fetch_config", fetch_config)
    found = forecast(sft(), box(1), sft())
    assert list(found) == ["VRAM forecast"] and found["VRAM forecast"].said.startswith(said)
    assert found["VRAM forecast"].verdict == "warn" and len(asked) == 1


def test_commands_own_recipes_and_the_cpu_have_no_forecast(finetune: Finetune) -> None:
    models: Models = {}
    jobs = [Job("a", command=("x",)), Job("b", recipe="./own.py"), finetune(resources={"gpus": 0})]
    assert runs_with_forecast(jobs) == [] and judge([], box(), models).findings == []
