"""``gpurun smoke-test`` as a user has it: the command, its process, the base model from a hub."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Gpurun
from tests.support.document_types import TYPES, differences
from tests.support.hub import Hub
from tests.support.models.smoke_models import causal_run, change_tensor, classifier_run, flip_bit, record_fetched
from tests.support.models.tiny_models import CORPUS

READER = "hf_readerreaderreaderreaderreader00"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA classifier on Gemma 3's shape, as its run left it."""
    root = tmp_path_factory.mktemp("trained")
    classifier_run(root, "gemma3")
    return root


@pytest.fixture
def gpurun(tmp_path: Path) -> Gpurun:
    """The command, with a state of its own and no embedded box."""
    return Gpurun(tmp_path / "home", {"HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"})


def test_a_fetched_run_passes_with_its_base_from_the_jobs_folder(gpurun: Gpurun, trained: Path) -> None:
    record_fetched(gpurun.home, trained, trained)
    done = gpurun("smoke-test", "--device", "cpu")
    assert "7 samples: " in done.stdout and " LEGAL" in done.stdout
    assert "7 of 7 labels as on the box" in done.stdout
    assert "samples/s" in done.stdout
    assert done.stdout.rstrip().endswith("passed")


def test_a_flipped_bit_fails_with_the_worst_row_and_json_says_the_same(
    gpurun: Gpurun, trained: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(trained, tmp_path / "copy"))
    flip_bit(root / "models/best/head.safetensors", "weight", bit=24)
    run = record_fetched(gpurun.home, root, root)
    done = gpurun("smoke-test", run.run_id, check=6)
    assert "does not predict here what it predicted on the box" in done.stderr
    assert "row " in done.stderr and "FAILED" in done.stdout
    document = gpurun.json("smoke-test", run.run_id, check=6)
    assert differences(document, TYPES["SmokeTest"], set()) == []
    assert document["passed"] is False and document["run_id"] == run.run_id
    [model] = document["models"]
    assert model["comparison"]["problems"] and model["comparison"]["difference"] > model["comparison"]["limit"]


def test_the_jobs_own_tolerance_counts(gpurun: Gpurun, trained: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(trained, tmp_path / "copy"))
    change_tensor(root / "models/best/smoke/expected.safetensors", "logits", lambda tensor: tensor.add_(0.3))
    run = record_fetched(gpurun.home, root, root, smoke_test={"enabled": True, "tolerance": {"cpu": 0.5}})
    [model] = gpurun.json("smoke-test", run.run_id, "--device", "cpu")["models"]
    assert model["comparison"]["limit"] == 0.5 and 0.29 < model["comparison"]["difference"] < 0.31


def test_a_base_on_the_hub_is_fetched_with_the_token_and_the_worker_never_asks(
    gpurun: Gpurun, hub: Hub, tmp_path: Path
) -> None:
    root = tmp_path / "run"
    causal_run(root)
    commit = hub.add_model("acme/base", root / "base", gated=True)
    hub.add_account(READER, "ada", granted=("acme/base",))
    shutil.rmtree(root / "base")
    point_at(root / "models/best", "acme/base", commit)
    gpurun.env |= {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": READER, "HF_HUB_DISABLE_TELEMETRY": "1"}
    run = record_fetched(gpurun.home, root, tmp_path, model="acme/base")
    [model] = gpurun.json("smoke-test", run.run_id)["models"]
    assert model["comparison"]["agree"] == model["comparison"]["answers"] > 0
    assert model["tokens_per_second"] > 0 and len(model["texts"]) == len(CORPUS)
    asked = len(hub.requests)
    assert hub.downloads("model.safetensors") and asked

    gpurun.env.pop("HF_TOKEN")
    gpurun.json("smoke-test", run.run_id)
    assert len(hub.requests) == asked  # all of it in the cache, and nobody telephones home


def test_a_redirected_base_is_refused_before_anything_is_asked_of_the_hub(
    gpurun: Gpurun, hub: Hub, trained: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(trained, tmp_path / "copy"))
    point_at(root / "models/best", "evil/base", "e" * 40)
    gpurun.env |= {"HF_ENDPOINT": hub.endpoint}
    record_fetched(gpurun.home, root, root)
    assert "wants 'evil/base' as its base model, and the job named base" in gpurun("smoke-test", check=6).stderr
    # The same folder, named as a folder: it is still known which run it came from.
    assert "evil/base" in gpurun("smoke-test", str(root / "models/best"), check=6).stderr
    assert not hub.requests


def point_at(folder: Path, base: str, commit: str) -> None:
    for name, keys in (("gpurun.json", None), ("adapter_config.json", "base_model_name_or_path")):
        value = json.loads((folder / name).read_text())
        if keys:
            value[keys] = base
        else:
            value["base"] = {"id": base, "revision": commit, "path": None}
        (folder / name).write_text(json.dumps(value))


def test_the_working_directory_of_the_user_is_not_on_the_workers_path(
    gpurun: Gpurun, trained: Path, tmp_path: Path
) -> None:
    project, ran = tmp_path / "project", tmp_path / "ran"
    project.mkdir()
    (project / "peft.py").write_text(f"open({str(ran)!r}, 'w')\n")
    record_fetched(gpurun.home, trained, trained)
    gpurun("smoke-test", "--device", "cpu", cwd=project)
    assert not ran.exists()


def test_ones_own_inputs_on_a_plain_folder(gpurun: Gpurun, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"text": "one"}\n')
    done = gpurun("smoke-test", str(trained / "base"), "--inputs", str(tmp_path / "mine.jsonl"))
    assert "there was nothing of the box's to compare with" in done.stdout
    gpurun("smoke-test", str(trained / "base"), "--inputs", str(tmp_path / "nothing.jsonl"), check=2)


def test_each_of_ones_own_inputs_gets_its_class(gpurun: Gpurun, trained: Path, tmp_path: Path) -> None:
    record_fetched(gpurun.home, trained, trained)
    (tmp_path / "mine.jsonl").write_text('{"text": "one"}\n{"text": "the licence"}\n')
    done = gpurun("smoke-test", "--inputs", str(tmp_path / "mine.jsonl"))
    rows = [line.strip().split() for line in done.stdout.splitlines() if line.strip()[:2] in ("1:", "2:")]
    assert [row[0] for row in rows] == ["1:", "2:"] and all(row[1].endswith("LEGAL") for row in rows)
    [model] = gpurun.json("smoke-test", "--inputs", str(tmp_path / "mine.jsonl"))["models"]
    assert [each["label"] for each in model["labelled"]] == [row[1] for row in rows]


@pytest.mark.parametrize(
    ("make", "code", "said"),
    [
        (lambda path: path.mkdir(), 6, "there is nothing in"),
        (lambda path: (path / "logs").mkdir(parents=True), 6, "there is no model below"),
        (lambda path: None, 6, "there is no folder"),
    ],
)
def test_what_is_no_model_gets_a_sentence(
    gpurun: Gpurun, tmp_path: Path, make: Callable[[Path], Any], code: int, said: str
) -> None:
    make(tmp_path / "it")
    assert said in gpurun("smoke-test", str(tmp_path / "it"), check=code).stderr


def test_runs_that_are_unknown_or_not_fetched_get_a_sentence(gpurun: Gpurun, tmp_path: Path) -> None:
    assert "there is no run yet" in gpurun("smoke-test", check=2).stderr
    run = record_fetched(gpurun.home, None, tmp_path)
    done = gpurun("smoke-test", check=6)
    assert f"nothing of {run.run_id} was fetched yet" in done.stderr and "gpurun fetch" in done.stderr
    assert "knows no run 'nonsense'" in gpurun("smoke-test", "nonsense", check=2).stderr
    assert not os.path.exists(tmp_path / "hf")
