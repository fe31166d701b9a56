from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from remote_payload.train import download
from remote_payload.train.download import BaseModel, StallWatch, local_model
from remote_payload.train.errors import InputError
from tests.support.hub import Hub
from tests.support.models.toy_training import toy_run


def test_a_folder_that_grows_is_not_stalled_and_one_that_stands_still_is(tmp_path: Path) -> None:
    watch = StallWatch(tmp_path, 60)
    assert not watch.stalled(0)
    assert not watch.stalled(59)
    (tmp_path / "blob.incomplete").write_bytes(b"x" * 10)
    assert not watch.stalled(65), "it grew"
    assert not watch.stalled(120)
    assert watch.stalled(126)


@pytest.fixture
def at_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Downloads that this process starts know this hub only, with the token of somebody who may read acme/open."""
    hub.add_model("acme/open", {**FILES, "pytorch_model.bin": b"pickle", "modeling.py": b"import os"})
    hub.add_model("acme/gated", FILES, gated=True)
    hub.add_account(TOKEN, "ada")
    for name, value in hub.environment(tmp_path / "home", token=TOKEN).items():
        monkeypatch.setenv(name, value)
    return hub


TOKEN = "hf_readerreaderreaderreaderreader00"
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": b"w" * 50_000,
    "tokenizer.json": b"{}",
    "README.md": b"---\nlicense: mit\n---\n",
}


def test_a_model_of_the_hub_is_downloaded_at_its_commit_without_pickles_or_code(at_hub: Hub, tmp_path: Path) -> None:
    model = local_model(toy_run(tmp_path), "acme/open")
    assert model.revision == at_hub.models["acme/open"].revisions["main"]
    assert Path(model.path).name == model.revision
    assert {path.name for path in Path(model.path).iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acme/gated", r"settings\.model: acme/gated: the model is gated .* ask at https://huggingface\.co/acme/gated"),
        ("acme/nothing", r"settings\.model: acme/nothing: neither a folder here nor a model that this account can see"),
    ],
)
def test_what_the_hub_refuses_is_an_input_error(name: str, message: str, at_hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        local_model(toy_run(tmp_path), name)


def test_a_hub_that_cannot_be_reached_is_an_input_error_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", "http://nobody.invalid")  # RFC 2606: no such name is ever found
    with pytest.raises(InputError, match=r"settings\.model: acme/open: ConnectError: .+"):
        local_model(toy_run(tmp_path), "acme/open")
    assert "Traceback" not in capfd.readouterr().err


def test_a_download_that_stalls_is_ended_and_tried_again_without_xet(
    at_hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = toy_run(tmp_path)
    tries: list[str | None] = []
    original, flag = download._download, run.telemetry.flag

    def recorded(run: Any, name: str, revision: str | None, environment: dict[str, str]) -> Any:
        tries.append(environment.get("HF_HUB_DISABLE_XET"))
        return original(run, name, revision, environment)

    def flag_and_release(name: str, message: str) -> None:
        flag(name, message)
        at_hub.release()
        monkeypatch.setattr(download, "STALLED_AFTER", 60.0)

    monkeypatch.setattr(download, "_download", recorded)
    monkeypatch.setattr(download, "STALLED_AFTER", 4.0)
    monkeypatch.setattr(run.telemetry, "flag", flag_and_release)
    monkeypatch.delenv("HF_HUB_DISABLE_XET", raising=False)
    at_hub.stall("model.safetensors", 1000)
    model = local_model(run, "acme/open")
    assert (Path(model.path) / "model.safetensors").stat().st_size == 50_000
    assert tries == [None, "1"]
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["name"] for event in events if event["type"] == "flag"] == ["download_stalled"]


def test_a_folder_is_used_as_it_lies_and_known_by_its_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "README.md").write_text("---\ntags:\n- x\nlicense: apache-2.0\n---\n# Model\n")
    model = local_model(toy_run(tmp_path / "run"), str(tmp_path))
    nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert model == BaseModel(str(tmp_path), str(tmp_path), None, nothing, "apache-2.0")


@pytest.mark.parametrize(
    "card",
    ["", "# No header\n", "---\nlicense: [a, b]\n---\n", "---\nlicense: : :\n---\n", b"---\nlicense: \xff\n---\n"],
)
def test_a_card_without_a_licence_that_can_be_read_is_no_obstacle(card: str | bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_bytes(card.encode() if isinstance(card, str) else card)
    assert local_model(toy_run(tmp_path / "run"), str(tmp_path)).licence is None


def test_the_record_names_a_path_only_when_the_job_did() -> None:
    hub: dict[str, Any] = BaseModel("google/embeddinggemma-300m", "/root/cache/hub/x", revision="abc").as_dict()
    assert (hub["path"], hub["revision"]) == (None, "abc")
    assert BaseModel("data/minilm", "data/minilm").as_dict()["path"] == "data/minilm"
