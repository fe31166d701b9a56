"""``gpurun predict`` as a user has it: the command, its process, models of every origin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli import Gpurun
from tests.support.document_types import TYPES, differences
from tests.support.hub import Hub
from tests.support.models.plain_adapter import causal_adapter
from tests.support.models.smoke_models import LABELS, classifier_run, record_fetched
from tests.support.models.tiny_models import CORPUS, save_tiny_model


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


def test_the_mac_test_of_50_texts_by_a_fetched_run(gpurun: Gpurun, trained: Path, tmp_path: Path) -> None:
    run = record_fetched(gpurun.home, trained, trained)
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": CORPUS[index % 7], "n": index}) + "\n" for index in range(50)))
    checked = gpurun("predict", "legal", "--input", str(texts), "--output", str(tmp_path / "out.jsonl"), "--dry-run")
    assert "50 rows, 50 of them can be used" in checked.stdout and not (tmp_path / "out.jsonl").exists()
    document = gpurun.json(
        "predict", run.run_id, "--input", str(texts), "--output", str(tmp_path / "out.jsonl"), "--keep", "n"
    )
    assert differences(document, TYPES["Predict"], set()) == []
    assert (document["rows"], document["kind"], document["target"]) == (50, "classifier", f"{run.run_id}:best")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["n"] for row in rows] == list(range(50)) and {row["prediction"] for row in rows} <= set(LABELS)
    again = gpurun("predict", "legal", "--input", str(texts), "--output", str(tmp_path / "out.jsonl"), check=2)
    assert "is there already" in again.stderr


def test_a_bad_row_ends_with_its_place_and_exit_2_then_goes_on_marked(
    gpurun: Gpurun, trained: Path, tmp_path: Path
) -> None:
    record_fetched(gpurun.home, trained, trained)
    (tmp_path / "a.csv").write_text("text\nfine\n" + "x,y\n")
    words = ["predict", "legal", "--input", str(tmp_path / "a.csv"), "--output", str(tmp_path / "out.csv")]
    failed = gpurun(*words, check=2)
    assert "a.csv:3: 2 fields, and the first line names 1 columns" in failed.stderr and "Traceback" not in failed.stderr
    done = gpurun(*words, "--bad-rows", "mark")
    assert "2 rows → " in done.stdout and "1 rows could not be predicted" in done.stdout
    assert "2 fields" in (tmp_path / "out.csv").read_text().splitlines()[2]


def test_an_adapter_of_the_trainer_and_a_model_of_the_hub_answer(gpurun: Gpurun, hub: Hub, tmp_path: Path) -> None:
    base = save_tiny_model("llama", tmp_path / "base")
    adapter = causal_adapter(base, tmp_path / "adapter", list(CORPUS), ["q_proj", "v_proj"])
    hub.add_model("acme/base", base)
    gpurun.env |= {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_TELEMETRY": "1"}
    prompts = tmp_path / "p.jsonl"
    prompts.write_text(json.dumps({"prompt": CORPUS[0][:40]}) + "\n")
    for word, name in ((str(adapter), "tuned"), ("acme/base", "base")):
        gpurun(
            "predict",
            word,
            "--input",
            str(prompts),
            "--output",
            str(tmp_path / f"{name}.jsonl"),
            "--max-new-tokens",
            "8",
        )
        row = json.loads((tmp_path / f"{name}.jsonl").read_text())
        assert set(row) == {"file", "line", "answer", "tokens", "ended"} and 0 < row["tokens"] <= 8


def test_a_word_that_names_nothing_says_what_a_target_is(gpurun: Gpurun, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    words = ["--input", str(tmp_path / "a.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    for word, complaint in (("nothing", "nothing"), ("./nothing", "there is no folder ./nothing")):
        failed = gpurun("predict", word, *words, check=2)
        assert complaint in failed.stderr and "TARGET is a fetched run" in failed.stderr
