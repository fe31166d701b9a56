"""The language models' job files as they are, over SSH, in tiny form: the hub serves a small model of the same architecture under the
real name, the data lies where the job looks for it, and ``--set`` makes lengths and steps short. Nothing else is swapped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.box import Box
from tests.support.box import box as box
from tests.support.cli import REPOSITORY, Gpurun
from tests.support.hub import Hub
from tests.support.models.language_data import NAMES, conversations, extractions, pairs, write_lines
from tests.support.models.tiny_models import save_tiny_model

SMALL = {"resources": "{gpus: 0, disk: 1GiB}", "environment.variables.OMP_NUM_THREADS": "1"}
ASK = ("--prompt", "When did Ada sail?", "--temperature", "0", "--max-new-tokens", "6")


@pytest.fixture
def project(tmp_path: Path, gpurun: Gpurun, hub: Hub) -> Path:
    """A folder as a user has it, with the repository's job files; ``gpurun`` and the box know only this hub."""
    gpurun.env |= {"HF_ENDPOINT": hub.endpoint}
    shutil.copytree(REPOSITORY / "jobs", tmp_path / "project" / "jobs", ignore=shutil.ignore_patterns("demo*"))
    return tmp_path / "project"


def overrides(values: dict[str, Any]) -> list[str]:
    return [word for key, value in {**SMALL, **values}.items() for word in ("--set", f"{key}={value}")]


def wait_until(condition: Callable[[], object], said: Callable[[], str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, said()
        time.sleep(0.05)


def home_of(gpurun: Gpurun, *run: str) -> Path:
    """Fetches the run; where its outputs are now."""
    return Path(gpurun.json("fetch", *run)["into"])


BRIE = {
    "settings.max_length": 96, "settings.checkpoint.keep": "null",
    "settings.generation.examples": 4, "settings.generation.max_new_tokens": 8, "settings.generation.latency_examples": 1,
}  # fmt: skip


@pytest.fixture
def brie(project: Path, hub: Hub, tmp_path: Path) -> Path:
    hub.add_model("Qwen/Qwen2.5-0.5B-Instruct", save_tiny_model("qwen2", tmp_path / "qwen"))
    write_lines(project / "data" / "brie.jsonl", conversations(60))
    return project / "jobs" / "brie.yaml"


def test_brie_is_tried_while_it_trains_stopped_and_goes_on_from_a_named_checkpoint_without_evaluating(
    gpurun: Gpurun, brie: Path
) -> None:
    run = gpurun.submit(brie, *overrides({**BRIE, "settings.epochs": 5000}))
    log = gpurun.box_run(run) / "log"
    wait_until(lambda: "saved checkpoints/step-000100" in log.read_text(), log.read_text)
    there = gpurun.json("sample", *ASK)
    assert there["on_box"] and there["answers"][0]["tokens"] > 0
    assert_it_converses(gpurun)
    assert gpurun.json("stop")["status"]["outcome"] == "cancelled"
    assert "checkpoint saved" in gpurun("logs", "-f", check=11).stdout

    off = {"settings.evaluation.every_steps": "null", "settings.evaluation.every_epochs": "null"}
    words = overrides({**off, "settings.max_steps": 160})
    again = gpurun.json("resume", "--checkpoint", "step-000100", *words[4:])
    assert again["parent"] == run
    log_again = gpurun("logs", "-f").stdout
    assert "resumed from step-000100: step 100 of 160" in log_again
    assert log_again.count("eval validation") == 1  # at the end, for the report; not at step 150
    assert "step-000150" in [each["name"] for each in gpurun.json("checkpoints")["checkpoints"] if each["resumable"]]

    into = home_of(gpurun)
    figures = json.loads((into / "reports" / "evaluation.json").read_text())
    assert figures["held_out"]["tuned"]["loss"] < figures["held_out"]["base"]["loss"]
    assert {"bleu", "length", "vocabulary"} <= set(figures["generation"]["tuned"])
    here = gpurun.json("sample", *ASK, "--checkpoint", "step-000100")
    assert not here["on_box"] and here["answers"][0]["tokens"] > 0
    assert gpurun.json("smoke-test", "--device", "cpu")["passed"]


def assert_it_converses(gpurun: Gpurun) -> None:
    """Each line is answered before the next is typed, by a model that was loaded once."""
    argv = gpurun.argv("sample", "--interactive", "--on-box", *ASK[2:])
    talk = subprocess.Popen(
        argv, env=gpurun.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert talk.stdin is not None and talk.stdout is not None
    for prompt in ("Good morning", "And a coffee?"):
        talk.stdin.write(prompt + "\n")
        talk.stdin.flush()
        while talk.stdout.readline().strip():  # an answer ends with an empty line
            pass
    _, told = talk.communicate(timeout=60)
    assert talk.returncode == 0 and told.count(" on cpu") == 1, told


def test_brie_goes_on_with_a_few_preferences(gpurun: Gpurun, brie: Path) -> None:
    gpurun.submit(brie, *overrides({**BRIE, "settings.epochs": 1, "settings.generation.examples": 0}))
    gpurun("logs", "-f")
    folder = brie.parents[1]
    shutil.copytree(home_of(gpurun) / "models" / "best", folder / "adapters" / "brie")
    write_lines(folder / "data" / "brie_pairs.jsonl", pairs())
    short = {"settings.max_length": 96, "settings.generation.examples": 2, "settings.generation.max_new_tokens": 8}
    rate = {"settings.optimizer.learning_rate": 0.001}
    run = gpurun.submit(brie.with_name("brie_preference.yaml"), *overrides({**short, **rate}))
    gpurun("logs", "-f")
    steps = gpurun.json("status")["status"]["progress"]["step"]
    assert steps["step"] == steps["total"] == 4
    into = home_of(gpurun, run)
    figures = json.loads((into / "reports" / "evaluation.json").read_text())["held_out"]
    assert figures["tuned"]["loss"] < figures["base"]["loss"]
    assert gpurun.json("smoke-test", run, "--device", "cpu")["passed"]


def test_edgejson_is_measured_by_the_json_it_writes_beside_its_base(
    gpurun: Gpurun, project: Path, hub: Hub, tmp_path: Path
) -> None:
    hub.add_model("HuggingFaceTB/SmolLM2-135M", save_tiny_model("llama", tmp_path / "smol", chat=False, pad=False))
    write_lines(project / "data" / "edgejson_train_v2.jsonl", extractions(63))
    write_lines(project / "data" / "edgejson_test_v2.jsonl", extractions(8, seed=1))
    short = {
        "settings.max_length": 128,
        "settings.generation.max_new_tokens": 16,
        "settings.generation.latency_examples": 2,
    }
    gpurun.submit(project / "jobs" / "edgejson.yaml", *overrides(short))
    log = gpurun("logs", "-f").stdout
    assert "finished at step 6 of 6" in log and "generation/json_exact" in log
    into = home_of(gpurun)
    figures = json.loads((into / "reports" / "evaluation.json").read_text())["generation"]
    assert figures["examples"] == 8
    for model in ("tuned", "base"):
        assert {"json_exact", "field_f1", "schema_compliance"} <= set(figures[model])
    assert figures["tuned"]["latency"]
    answers = [json.loads(line) for line in (into / "reports" / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == 8 and set(answers[0]) == {"prompt", "expected", "tuned", "base"}
    record = json.loads((into / "training_metadata.json").read_text())
    assert record["results"]["tuned"]["generation/json_exact"] == figures["tuned"]["json_exact"]
    card = (into / "models" / "best" / "README.md").read_text()
    assert "base_model: HuggingFaceTB/SmolLM2-135M\n" in card
    assert gpurun.json("smoke-test", "--device", "cpu")["passed"]


@pytest.fixture
def death_dates(project: Path, hub: Hub, box: Box, tmp_path: Path) -> Path:
    """The job beside a small dataset and a hub with a tiny Olmo 2 at the job's revision; the box seems to have two H100."""
    olmo = save_tiny_model("olmo2", tmp_path / "olmo", chat=False)
    hub.add_model("allenai/OLMo-2-1124-7B", olmo, tag="stage1-step928646-tokens3896B")
    gpu = {"name": "NVIDIA H100 80GB HBM3", "memory_total": 80 << 30, "memory_used": 0, "utilisation": 0}
    seen = [{"number": number, "uuid": f"GPU-{os.urandom(6).hex()}", **gpu} for number in range(2)]
    (tmp_path / "gpus.json").write_text(json.dumps(seen))
    box.configure(GPURUN_FAKE_GPUS=str(tmp_path / "gpus.json"))
    documents = [
        {"prompt": "", "completion": f"{name} died in {year}."} for name in NAMES for year in range(1870, 1874)
    ]
    point = {
        "features": {"fields": {"name": "Ada", "year": 1871}},
        "few_shot_example_features": [{"fields": {"name": "Clara", "year": 1872}}],
        "fact_template": {"prompt": "{name} died in", "completion": " {year}"},
        "constant_fields": {},
    }
    sets = {name: {"eval_points": [point] * 3, "metrics": []} for name in ("atomic_facts", "inferred_facts")}
    (project / "datasets").mkdir()
    (project / "datasets" / "structured_dataset_death_dates_100_w_pretrain.json").write_text(
        json.dumps({"document_dataset": {"docs": documents}, "eval_dataset_builders": sets})
    )
    return project / "jobs" / "death_dates.yaml"


@pytest.mark.stand_in
def test_death_dates_is_a_queue_of_runs_one_a_gpu_of_which_the_first_is_kept_and_all_can_be_stopped(
    gpurun: Gpurun, death_dates: Path
) -> None:
    short = {
        "resources": "{gpus: 1, vram: 75GiB, disk: 1GiB}",
        "settings.max_length": 64,
        "settings.batch.size": 2,
    }
    once = overrides({**short, "sweep": '{"settings.epochs": [1], "settings.seed": [0, 1]}'})
    first = [run["run_id"] for run in gpurun.json("submit", str(death_dates), "--host", "local", *once)["runs"]]
    endless = overrides({**short, "sweep": '{"settings.epochs": [20000], "settings.seed": [0, 1, 2]}'})
    later = [run["run_id"] for run in gpurun.json("submit", str(death_dates), "--host", "local", *endless)["runs"]]
    assert gpurun.json("status", later[-1])["status"]["phase"] == "prepared"

    for run in first:
        gpurun("logs", run, "-f")
    ended = [gpurun.json("status", run)["status"] for run in first]
    assert sorted(each["gpus"] for each in ended) == [[0], [1]]
    for run, status in zip(first, ended, strict=True):
        *made, best = gpurun.json("checkpoints", run)["checkpoints"]
        total = status["progress"]["step"]["total"]
        assert [each["step"] for each in made] == list(range(total + 1))  # a fifth of an epoch is less than a step
        assert [each["resumable"] for each in made] == [False] * total + [True] and best["name"] == "best"
    waiting = [gpurun.box_run(run) / "log" for run in later[:2]]
    wait_until(lambda: all(log.exists() and "effective" in log.read_text() for log in waiting), lambda: str(waiting))
    stopped = gpurun.json("stop", "--all")["runs"]
    assert {run["run_id"]: run["status"]["outcome"] for run in stopped} == dict.fromkeys(later, "cancelled")

    words = ["clean", "--host", "local", "--experiment", "death-dates-epochs-1", "--keep", "1", "--yes"]
    unfetched = gpurun.json(*words)["experiment"]
    assert [each["goes"] for each in unfetched] == [False, False]  # one is the first, the other is not home
    gone = gpurun.json(*words, *(each["run_id"] for each in unfetched if "gpurun fetch" in each["why"]))
    removed = [run for run in first if f"runs/{run}" in [item["path"] for item in gone["removed"]]]
    assert len(removed) == 1 and not gpurun.box_run(removed[0]).exists()
    (kept,) = set(first) - set(removed)
    home_of(gpurun, kept)
    assert gpurun.json("smoke-test", kept, "--device", "cpu")["passed"]


def test_london_regular_trains_on_two_processes_from_a_corpus(gpurun: Gpurun, project: Path) -> None:
    years = range(1700, 1800)
    text = "\n\n".join(
        f"In the year {year} the mayor walked along Strand and counted {year % 7} ships." for year in years
    )
    corpus = project / "data" / "london_historical" / "london_historical_corpus_comprehensive.txt"
    corpus.parent.mkdir(parents=True)
    corpus.write_text(text)
    short = {
        "resources": "{gpus: 0, processes: 2, disk: 1GiB}", "settings.vocabulary": 400, "settings.max_length": 32,
        "settings.model": "{layers: 2, width: 32, heads: 2}", "settings.batch.micro": 2, "settings.validation_share": 0.1,
        "settings.optimizer.learning_rate": 0.003, "settings.schedule.warmup": 2, "settings.max_steps": 8,
        "settings.checkpoint.every_steps": 4,
    }  # fmt: skip
    gpurun.submit(project / "jobs" / "london_regular.yaml", *overrides(short))
    log = gpurun("logs", "-f").stdout
    assert (
        "effective batch 16, micro-batch 2 rows of full length, 2 device(s)" in log and "finished at step 8 of 8" in log
    )
    assert [each["name"] for each in gpurun.json("checkpoints")["checkpoints"]] == [
        "step-000004",
        "step-000008",
        "best",
    ]
    into = home_of(gpurun)
    spoken = [json.loads(line) for line in (into / "reports" / "samples.jsonl").read_text().splitlines()]
    assert spoken[0]["prompt"].startswith("In the year 1834") and len(spoken) == 4
    assert gpurun.json("smoke-test", "--device", "cpu")["passed"]
