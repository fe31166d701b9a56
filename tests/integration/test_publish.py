"""``gpurun publish`` as a user has it: the command, the real client of the Hub, and a hub on loopback."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from remote_payload.recipes.evaluated import Column, Evaluation
from remote_payload.train.files import write_json
from remote_payload.train.inference.target import load_target
from tests.support.cli import Gpurun
from tests.support.document_types import TYPES, differences
from tests.support.hub import Hub
from tests.support.models.classify_job import classify_settings, write_texts
from tests.support.models.plain_adapter import causal_adapter
from tests.support.models.recipe_process import run_recipe_here
from tests.support.models.smoke_models import classifier_run, record_fetched
from tests.support.models.tiny_models import save_tiny_model

WRITER, READER = "hf_" + "writerWRITER0123writerWRITER0123ab", "hf_" + "readerREADER0123readerREADER0123ab"
HEADER = """---
license: other
base_model: acme/encoder
base_model_relation: adapter
library_name: peft
pipeline_tag: text-classification
tags: [gpurun, classify]
model-index:
- name: legal
  results:
  - task: {type: text-classification}
    dataset: {name: data/legal, type: custom}
    metrics: [{type: accuracy, value: 0.9831, name: accuracy}]
---

# legal

| metric | value |
|---|---|
| accuracy | 0.9831 |
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA classifier as its run left it, on a model of the hub, with a path of the box in every file that may have one."""
    root = tmp_path_factory.mktemp("trained")
    folder = classifier_run(root)
    place = "/workspace/ada/project/models/encoder"
    about = json.loads((folder / "gpurun.json").read_text())
    about["base"] = {"id": "acme/encoder", "path": None, "revision": "0" * 40}
    write_json(folder / "gpurun.json", {**about, "note": f"from {place}"})
    adapter = json.loads((folder / "adapter_config.json").read_text())
    write_json(folder / "adapter_config.json", {**adapter, "base_model_name_or_path": "acme/encoder"})
    (folder / "README.md").write_text(HEADER + f"\ntrained in `{place}`\n")
    (folder / "training_args.bin").write_bytes(b"\x80pickle" + place.encode())
    return root


@pytest.fixture
def gpurun(tmp_path: Path, hub: Hub) -> Gpurun:
    """The command with a read token as this machine's login, and the hub's one account, ada, with the other token."""
    hub.add_account(READER, "ada", "read", granted=("ada/legal",))
    hub.add_account(WRITER, "ada", "write", granted=("ada/legal",))
    hub.add_model(
        "acme/encoder", {"config.json": b"{}"}, card={"license": "gemma", "license_link": "https://ai.example/terms"}
    )
    env = {
        name: value for name, value in hub.environment(tmp_path / "hf", token=READER).items() if name.startswith("HF_")
    }
    return Gpurun(tmp_path / "home", env | {"HF_PUBLISH_TOKEN": WRITER})


def texts(files: Mapping[str, bytes]) -> str:
    return "\n".join(content.decode("utf-8", "replace") for content in files.values())


def card_of(hub: Hub, name: str, tmp_path: Path) -> ModelCard:
    """README.md of a repository, as the client reads it."""
    (tmp_path / "README.md").write_bytes(hub.files(name)["README.md"])
    return ModelCard.load(tmp_path / "README.md")


@pytest.mark.parametrize("transfer", ["lfs", "xet"])
def test_a_run_is_published_and_its_card_read_back(
    gpurun: Gpurun, hub: Hub, trained: Path, tmp_path: Path, transfer: str
) -> None:
    run = record_fetched(gpurun.home, trained, trained)
    if transfer == "xet":
        hub.xet = tmp_path / "xet"
        hub.xet.mkdir()
    else:
        gpurun.env["HF_HUB_DISABLE_XET"] = "1"
    done = gpurun("publish", run.run_id, "ada/legal")
    assert done.stdout.splitlines()[-1] == f"{hub.endpoint}/ada/legal"
    assert "gemma" in done.stderr and "base acme/encoder, licence gemma, private" in done.stdout
    assert hub.models["ada/legal"].private
    files = hub.files("ada/legal")
    card: Any = card_of(hub, "ada/legal", tmp_path)
    assert (card.data.base_model, card.data.base_model_relation) == ("acme/encoder", "adapter")
    assert (card.data.license, card.data.license_link) == ("gemma", "https://ai.example/terms")
    assert [(each.metric_type, each.metric_value) for each in card.data.eval_results] == [("accuracy", 0.9831)]
    assert "trained in `./encoder`" in card.text and "| accuracy | 0.9831 |" in card.text
    assert "workspace" not in texts(files) and str(trained) not in texts(files)
    assert "training_args.bin" not in files and "manifest.json" not in files and "smoke/inputs.jsonl" in files
    weights = (trained / "models/best/adapter_model.safetensors").read_bytes()
    if transfer == "xet":
        assert files["adapter_model.safetensors"].endswith(b" %d" % len(weights)) and any(hub.xet.rglob("default.*"))  # type: ignore[union-attr]
    else:
        assert files["adapter_model.safetensors"] == weights
    # The token that writes went to the hub alone, and for nothing but the repository; no other place here has it.
    assert {seen.path for seen in hub.saw(WRITER) if "acme" in seen.path or "/storage/" in seen.path} == set()
    kept = [path for path in (*gpurun.home.rglob("*"), *(tmp_path / "hf").rglob("*")) if path.is_file()]
    assert [path for path in kept if WRITER.encode() in path.read_bytes()] == []
    assert WRITER not in done.stdout + done.stderr
    # Once more: nothing is sent.
    before = len(hub.messages)
    assert "nothing to upload" in gpurun("publish", run.run_id, "ada/legal").stdout
    assert len(hub.messages) == before


def test_a_dry_run_writes_nothing_and_needs_no_token_that_writes(gpurun: Gpurun, hub: Hub, trained: Path) -> None:
    del gpurun.env["HF_PUBLISH_TOKEN"]
    folder = trained / "models/best"
    done = gpurun("publish", str(folder), "ada/legal", "--dry-run")
    assert "new " in done.stdout and "adapter_model.safetensors" in done.stdout
    assert "stays here: training_args.bin (not a kind of file that a model needs)" in done.stdout
    document = gpurun.json("publish", str(folder), "ada/legal", "--dry-run", "--public")
    assert differences(document, TYPES["Publish"], set()) == []
    assert {"path": "smoke/inputs.jsonl", "reason": "rows of your data, and the repository is public"} in document[
        "left_out"
    ]
    assert document["commit"] is None and document["dry_run"] and not document["private"]
    assert "ada/legal" not in hub.models and {seen.method for seen in hub.requests} <= {"GET", "HEAD"}


def test_other_content_is_overwritten_only_when_told(gpurun: Gpurun, hub: Hub, trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained / "models/best", tmp_path / "mine"))
    gpurun.env["HF_HUB_DISABLE_XET"] = "1"
    gpurun("publish", str(folder), "ada/legal")
    # Somebody wrote a note, and put a whole model beside the adapter.
    own = {
        **hub.files("ada/legal"),
        "README.md": b"---\nlicense: mit\n---\nours",
        "model.safetensors": b"1",
        "photo.png": b"2",
    }
    hub.add_model("ada/legal", own)
    refused = gpurun("publish", str(folder), "ada/legal", check=2)
    assert "ada/legal has other content already" in refused.stderr and "--update" in refused.stderr
    assert "README.md  differs" in refused.stderr and "model.safetensors  is there, and not here" in refused.stderr
    assert "adapter_model.safetensors" not in refused.stderr
    assert hub.files("ada/legal") == own
    gpurun("publish", str(folder), "ada/legal", "--update")
    files = hub.files("ada/legal")
    assert "model.safetensors" not in files and files["photo.png"] == b"2" and b"# legal" in files["README.md"]


def test_a_checkpoint_is_published_as_the_model_that_it_is(gpurun: Gpurun, hub: Hub, tmp_path: Path) -> None:
    """What comes back from the hub answers as the checkpoint itself does, loaded as ``gpurun evaluate`` loads it."""
    base = save_tiny_model("bert", tmp_path / "base")
    settings = classify_settings(Path("base"), write_texts(tmp_path / "texts.jsonl", 32), epochs=2)
    outputs = run_recipe_here(
        {"name": "legal", "recipe": "classify", "settings": settings}, tmp_path, tmp_path / "run"
    ).outputs
    run = record_fetched(gpurun.home, outputs, tmp_path)
    gpurun.env["HF_HUB_DISABLE_XET"] = "1"
    first, *_ = sorted((outputs / "checkpoints").iterdir())
    done = gpurun("publish", f"legal:{first.name}", "ada/legal")
    assert "6 of 6 answers as the checkpoint's own, here" in done.stderr
    assert done.stdout.splitlines()[-1] == f"{hub.endpoint}/ada/legal"
    files = hub.files("ada/legal")
    assert not {"state.json", "manifest.json", "model.safetensors", "optimizer.safetensors"} & files.keys() and str(
        tmp_path
    ) not in texts(files)
    back = tmp_path / "back"
    for name, content in files.items():
        (back / name).parent.mkdir(parents=True, exist_ok=True)
        (back / name).write_bytes(content)
    there, own = (load_target(folder, base_path=base) for folder in (back, first))
    batch = own.tokenizer(["a licence grants", "the ship"], padding=True, return_tensors="pt")
    ask = (batch["input_ids"], batch["attention_mask"], True)
    with torch.no_grad():
        assert torch.equal(there.logits(*ask), own.logits(*ask)) and there.labels == own.labels
    assert (
        "# legal" in files["README.md"].decode()
        and f"checkpoint of the training, `{first.name}`" in files["README.md"].decode()
    )
    assert "nothing to upload" in gpurun("publish", str(first), "ada/legal", "--dry-run").stdout
    told = gpurun("publish", f"legal:{first.name}", "ada/legal", "--merged", check=6).stderr
    assert f"there is no {run.run_id}-{first.name}-export/merged" in told
    unknown = gpurun("publish", f"{run.run_id}:step-000200", "ada/legal", check=6).stderr
    assert f"here are: {first.name}" in unknown
    assert [path for path in gpurun.home.iterdir() if path.name.startswith(".publish")] == []


def test_the_table_of_an_evaluation_goes_into_the_card(gpurun: Gpurun, hub: Hub, trained: Path, tmp_path: Path) -> None:
    columns = [
        Column(
            "legal",
            "legal",
            False,
            "",
            "classifier",
            "cpu",
            "float32",
            "x",
            {"accuracy": 0.9, "latency/median_ms": 3.5},
        ),
        Column("base of legal", "legal", True, "", "classifier", "cpu", "float32", "x", {"accuracy": 0.5}),
        Column("a|b", "/home/ada/b", False, "", "classifier", "cpu", "float32", "x", {"accuracy": 0.7}),
    ]
    found = Evaluation("/home/ada/data/test.jsonl", "0" * 64, 1200, columns)
    write_json(tmp_path / "evaluation.json", found.as_json())
    (tmp_path / "evaluation.md").write_text("with examples")
    run = record_fetched(gpurun.home, trained, trained)
    gpurun.env["HF_HUB_DISABLE_XET"] = "1"
    told = gpurun(
        "publish", str(trained / "models/best"), "ada/x", "--evaluation", str(tmp_path / "hf"), check=2
    ).stderr
    assert "there is no readable evaluation.json" in told
    gpurun("publish", run.run_id, "ada/legal", "--evaluation", str(tmp_path))
    card: Any = card_of(hub, "ada/legal", tmp_path)
    assert "On `./test.jsonl`, 1,200 examples:" in card.text and "ada/data" not in str(card)
    assert "| metric | legal | base of legal | a\\|b |" in card.text
    assert "| accuracy | 0.9000 | 0.5000 | 0.7000 |" in card.text
    figures = [(each.dataset_name, each.metric_type, each.metric_value) for each in card.data.eval_results]
    assert figures == [("data/legal", "accuracy", 0.9831), ("./test.jsonl", "accuracy", 0.9)]


def test_an_upload_that_broke_off_goes_on(gpurun: Gpurun, hub: Hub, trained: Path) -> None:
    """The weights arrived, the commit did not: repeated, they are not sent again."""
    gpurun.env["HF_HUB_DISABLE_XET"] = "1"
    hub.refused_commits = 1
    folder = str(trained / "models/best")
    failed = gpurun("publish", folder, "ada/legal", check=3)
    assert "it goes on" in failed.stderr and hub.stored
    sent = [seen for seen in hub.requests if seen.method == "PUT"]
    gpurun("publish", folder, "ada/legal")
    assert [seen for seen in hub.requests if seen.method == "PUT"] == sent
    assert "adapter_model.safetensors" in hub.files("ada/legal")


def test_a_public_repository_and_a_token_that_only_reads_are_refused(gpurun: Gpurun, hub: Hub, trained: Path) -> None:
    folder = str(trained / "models/best")
    hub.add_model("ada/open", {"x.txt": b"x"})
    assert "it is public" in gpurun("publish", folder, "ada/open", check=2).stderr
    assert "may not write to stranger/x" in gpurun("publish", folder, "stranger/x", check=3).stderr
    gpurun.env["HF_PUBLISH_TOKEN"] = READER
    assert "may only read" in gpurun("publish", folder, "ada/legal", check=3).stderr
    del gpurun.env["HF_PUBLISH_TOKEN"]
    without = gpurun("publish", folder, "ada/legal", check=3).stderr
    assert "HF_PUBLISH_TOKEN" in without and "kept nowhere" in without
    assert "write it as owner/name" in gpurun("publish", folder, "legal", check=2).stderr.lower()
    assert set(hub.models) == {"acme/encoder", "ada/open"}


def test_an_adapter_that_gpurun_never_saw_gets_its_card(gpurun: Gpurun, hub: Hub, tmp_path: Path) -> None:
    """As the Trainer saves it: its base is a folder of this machine in four places, and its card is peft's form to fill in."""
    base = save_tiny_model("qwen2", tmp_path / "ada/base")
    folder = causal_adapter(base, tmp_path / "adapter", ["a b c", "d e f"], ["q_proj"])
    assert str(base) in (folder / "README.md").read_text()
    gguf, merged = tmp_path / "out/gguf", tmp_path / "out/merged"
    gguf.mkdir(parents=True)
    (gguf / "mine-q8_0.gguf").write_bytes(b"GGUF" + bytes(100))
    (gguf / "Modelfile").write_text("FROM ./mine-q8_0.gguf\n")
    shutil.copytree(base, merged)
    gpurun.env["HF_HUB_DISABLE_XET"] = "1"
    told = gpurun("publish", str(folder), "ada/legal", "--merged", check=6).stderr
    assert "there is no adapter-export/merged" in told and "gpurun export --merged" in told
    done = gpurun("publish", str(folder), "ada/legal", "--gguf", "--merged", "--exports", str(tmp_path / "out"))
    assert "its licence was not checked" in done.stderr
    files, card = hub.files("ada/legal"), card_of(hub, "ada/legal", tmp_path)
    assert {"mine-q8_0.gguf", "Modelfile", "merged/model.safetensors", "adapter_model.safetensors"} <= set(files)
    assert "training_args.bin" not in files and str(tmp_path) not in texts(files)
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "./base"
    assert card.data.get("base_model") is None and card.data.get("license") == "other"
    assert '`merged/`: the whole model, `from_pretrained("ada/legal", subfolder="merged")`' in card.text
    downloaded = tmp_path / "downloaded.safetensors"
    downloaded.write_bytes(io.BytesIO(files["adapter_model.safetensors"]).getvalue())
    assert load_file(downloaded).keys() == load_file(folder / "adapter_model.safetensors").keys()
