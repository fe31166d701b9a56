from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from remote_payload.train import download
from remote_payload.train.download import BaseModel, StallWatch, local_model
from remote_payload.train.errors import InputError
from tests.support.toy_training import toy_run


def test_a_folder_that_grows_is_not_stalled_and_one_that_stands_still_is(tmp_path: Path) -> None:
    watch = StallWatch(tmp_path, 60)
    assert not watch.stalled(0)
    assert not watch.stalled(59)
    (tmp_path / "blob.incomplete").write_bytes(b"x" * 10)
    assert not watch.stalled(65), "it grew"
    assert not watch.stalled(120)
    assert watch.stalled(126)


STALLS_WITH_XET = """
import json, os, sys, time
if os.environ.get("HF_HUB_DISABLE_XET") != "1":
    time.sleep(300)
print(json.dumps({"path": sys.argv[3], "revision": "abc", "licence": "mit"}))
"""


def test_a_download_that_stalls_is_ended_and_tried_again_without_xet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}\n{STALLS_WITH_XET}")
    script.chmod(0o755)
    monkeypatch.setattr(download.sys, "executable", str(script))
    monkeypatch.setattr(download, "STALLED_AFTER", 0.6)
    monkeypatch.setattr(download, "_cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("HF_HUB_DISABLE_XET", raising=False)
    model = local_model(toy_run(tmp_path), "somebody/model")
    assert (model.id, model.path, model.revision, model.licence) == ("somebody/model", "somebody/model", "abc", "mit")
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["name"] for event in events if event["type"] == "flag"] == ["download_stalled"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            'import json; print(json.dumps({"error": "the model is gated"}))',
            r"settings\.model: somebody/model: the model is gated",
        ),
        ("raise SystemExit(9)", r"settings\.model: somebody/model: the download ended with status 9"),
    ],
)
def test_what_the_hub_refuses_is_an_input_error(
    answer: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}\n{answer}\n")
    script.chmod(0o755)
    monkeypatch.setattr(download.sys, "executable", str(script))
    with pytest.raises(InputError, match=message):
        local_model(toy_run(tmp_path), "somebody/model")


def test_a_folder_is_used_as_it_lies_and_known_by_its_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "README.md").write_text("---\ntags:\n- x\nlicense: apache-2.0\n---\n# Model\n")
    model = local_model(toy_run(tmp_path / "run"), str(tmp_path))
    nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert model == BaseModel(str(tmp_path), str(tmp_path), None, nothing, "apache-2.0")


def test_the_record_names_a_path_only_when_the_job_did() -> None:
    hub: dict[str, Any] = BaseModel("google/embeddinggemma-300m", "/root/cache/hub/x", revision="abc").as_dict()
    assert (hub["path"], hub["revision"]) == (None, "abc")
    assert BaseModel("data/minilm", "data/minilm").as_dict()["path"] == "data/minilm"
