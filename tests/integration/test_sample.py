"""``gpurun sample`` as a user has it: the command, its process, models of every origin."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.cli import Gpurun
from tests.support.document_types import TYPES, differences
from tests.support.hub import Hub
from tests.support.models.plain_adapter import causal_adapter
from tests.support.models.smoke_models import LABELS, causal_run, classifier_run, record_fetched
from tests.support.models.tiny_models import CORPUS, save_tiny_model


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA on Qwen 2's shape, as its run left it; it chats."""
    root = tmp_path_factory.mktemp("writer")
    folder = causal_run(root, generated=False)
    facts = json.loads((folder / "gpurun.json").read_text())
    (folder / "gpurun.json").write_text(
        json.dumps({**facts, "chat": True, "system_prompt": "Be short.", "end_tokens": [3]})
    )
    (folder / "manifest.json").write_text(json.dumps({"step": 7, "metrics": {"loss": 1.5}, "files": []}))
    return root


@pytest.fixture
def gpurun(tmp_path: Path) -> Gpurun:
    """The command, with a state of its own and no embedded box."""
    return Gpurun(tmp_path / "home", {"HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"})


def test_a_run_answers_as_its_job_says_with_its_base_beside_it(gpurun: Gpurun, writer: Path, tmp_path: Path) -> None:
    how = {"temperature": 0.75, "top_p": 0.9, "max_new_tokens": 6}
    run = record_fetched(
        gpurun.home,
        writer,
        writer,
        recipe="sft",
        settings={"model": "base", "train": "x", "generation": how},
    )
    (tmp_path / "persona.txt").write_text("You are Ada,\nwho answers in verse.\n")
    (tmp_path / "p.txt").write_text("The ship\nWho was the mayor?\n")
    words = ["sample", "legal", "--prompts", str(tmp_path / "p.txt"), "--samples", "2", "--seed", "5"]
    found = gpurun.json(*words, "--base", "--system-prompt", f"@{tmp_path / 'persona.txt'}")
    assert differences(found, TYPES["Sample"], set()) == []
    assert (found["run_id"], found["target"], found["on_box"]) == (run.run_id, f"{run.run_id}:latest", False)
    assert (found["kind"], found["step"], found["metrics"]) == ("causal_lm", 7, {"loss": 1.5})
    assert found["answering"] == {
        **how, "repetition_penalty": 1.0, "seed": 5, "system_prompt": "You are Ada,\nwho answers in verse.",
    }  # fmt: skip
    assert [(each["prompt"], each["sample"], each["base"]) for each in found["answers"]] == [
        (prompt, number, base)
        for prompt in ("The ship", "Who was the mayor?")
        for number in (1, 2)
        for base in (True, False)
    ]
    assert all(0 <= each["tokens"] <= 6 for each in found["answers"])
    by_training = gpurun(*words)
    assert " and its base" not in by_training.stderr
    assert "temperature 0.75, top-p 0.9, seed 5, at most 6 tokens" in by_training.stderr
    assert by_training.stdout.count("-- sample 2\n") == 2 and "\x1b" not in by_training.stdout


def test_what_makes_no_sense_ends_with_what_to_type(gpurun: Gpurun, writer: Path, tmp_path: Path) -> None:
    record_fetched(gpurun.home, writer, writer, recipe="sft", settings={"model": "base", "train": "x"})
    whole = save_tiny_model("llama", tmp_path / "whole")
    for words, complaint in (
        (["legal"], "there is no prompt"),
        (["legal", "--prompt", "a", "--samples", "2"], "2 samples at temperature 0"),
        (["./nothing", "--prompt", "a"], "there is no folder ./nothing"),
        ([str(whole), "--prompt", "a", "--base"], "nothing here says which model"),
        (
            ["legal", "--prompt", "a", "--system-prompt", "@/nothing.txt"],
            "--system-prompt: /nothing.txt cannot be read",
        ),
    ):
        assert complaint in gpurun("sample", *words, check=2).stderr


def test_a_classifier_says_its_classes(gpurun: Gpurun, tmp_path: Path) -> None:
    folder = classifier_run(tmp_path, "bert", rank=0)
    found = gpurun.json("sample", str(folder), "--prompt", CORPUS[0], "--prompt", CORPUS[2])
    assert differences(found, TYPES["Sample"], set()) == []
    assert found["run_id"] is None and found["kind"] == "classifier" and not found["answers"]
    assert all(set(each["probabilities"]) == set(LABELS) for each in found["classified"])
    shown = gpurun("sample", str(folder), "--prompt", CORPUS[0]).stdout.splitlines()
    (best, second) = (line.split() for line in shown[1:3])
    assert shown[0] == CORPUS[0] and float(best[1]) == pytest.approx(found["classified"][0]["probability"], abs=1e-4)
    assert float(best[1]) + float(second[1]) == pytest.approx(1, abs=1e-3)
    refused = gpurun("sample", str(folder), "--prompt", "a", "--base", check=6)
    assert f"{folder}: a classifier's base has no classes" in refused.stderr


def test_an_adapter_of_the_trainer_on_a_base_of_the_hub_is_asked_by_lines_of_a_pipe(
    gpurun: Gpurun, hub: Hub, tmp_path: Path
) -> None:
    base = save_tiny_model("llama", tmp_path / "base")
    adapter = causal_adapter(base, tmp_path / "adapter", list(CORPUS), ["q_proj", "v_proj"])
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "acme/base"}))
    hub.add_model("acme/base", base)
    gpurun.env |= {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_TELEMETRY": "1"}
    greedy = ["--temperature", "0", "--max-new-tokens", "4"]
    done = subprocess.run(
        gpurun.argv("sample", str(adapter), "--interactive", "--base", "--json", *greedy),
        env=gpurun.environment(), input="The ship\n\nWho was\n", capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout)["answers"]
    assert [(each["prompt"], each["base"]) for each in found] == [
        (prompt, base) for prompt in ("The ship", "Who was") for base in (True, False)
    ]
    alone = gpurun.json("sample", "acme/base", "--prompt", "The ship", *greedy)
    assert alone["target"] == "acme/base" and alone["answers"][0]["text"] == found[0]["text"]
