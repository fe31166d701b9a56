"""Publishing at the end of a run: only where asked for, by the real client to the loopback hub, and never a reason to lose a model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi

from remote_payload.settings import RECIPES, settings_class
from remote_payload.settings.training import Publish
from remote_payload.train.distributed import World
from remote_payload.train.results.publish import publish
from remote_payload.train.run import Run
from remote_payload.train.telemetry import Telemetry
from tests.support.hub import Hub
from tests.support.models.smoke_models import classifier_run

WRITER = "hf_" + "writerWRITER0123writerWRITER0123ab"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of a run that is over."""
    root = tmp_path_factory.mktemp("outputs")
    classifier_run(root)
    (root / "models/best/README.md").write_text("---\nlicense: mit\n---\n\n# legal\n")
    return root


@pytest.fixture
def run(outputs: Path, tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Run[Any]:
    hub.add_account(WRITER, "me", "write", granted=("me/legal",))
    monkeypatch.setenv("HF_PUBLISH_TOKEN", WRITER)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    telemetry = Telemetry("legal", tmp_path / "events.jsonl", tmp_path / "logs", True)
    world = World(0, 1, 0, torch.device("cpu"))
    settings: Any = SimpleNamespace(publish=Publish("me/legal"))
    return Run("legal", "classify", {"name": "legal"}, settings, outputs, None, world, telemetry)


def test_every_recipe_can_be_told_to_publish() -> None:
    assert [name for name in RECIPES if "publish" not in settings_class(name).__dataclass_fields__] == []


def test_nothing_is_published_unasked(run: Run[Any], hub: Hub) -> None:
    run.settings.publish = Publish()
    publish(run, HfApi(hub.endpoint))
    assert hub.requests == [] and run.phases == []


@pytest.mark.parametrize("private", [True, False])
def test_the_best_model_goes_to_the_repository(
    run: Run[Any], hub: Hub, private: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    run.settings.publish = Publish("me/legal", private=private)
    hub.xet = run.outputs / f"xet-{private}"
    hub.xet.mkdir()
    publish(run, HfApi(hub.endpoint))
    out = capsys.readouterr().out
    assert f"published: {hub.endpoint}/me/legal" in out and WRITER not in out
    assert hub.models["me/legal"].private is private
    files = hub.files("me/legal")
    assert {"adapter_model.safetensors", "head.safetensors", "gpurun.json", "README.md"} <= set(files)
    assert ("smoke/inputs.jsonl" in files) is private and "manifest.json" not in files
    assert hub.messages == ["legal, published with gpurun"]


def test_a_failure_is_a_flag_with_the_command_that_does_it_later(
    run: Run[Any], hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_model("me/legal", {"README.md": b"another"}, private=True)
    publish(run, HfApi(hub.endpoint))
    hub.accounts[WRITER].role, run.settings.publish.update = "read", True
    publish(run, HfApi(hub.endpoint))
    hub.broken = True
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # the client tries again
    publish(run, HfApi(hub.endpoint))
    flags = [line for line in capsys.readouterr().out.splitlines() if "FLAG publish_failed" in line]
    assert "me/legal has other content already: README.md  differs" in flags[0]
    assert "the token may not write to me/legal" in flags[1]
    assert len(flags) == 3 and all("gpurun publish legal me/legal --on-box" in flag for flag in flags)
    assert hub.files("me/legal") == {"README.md": b"another"}
    assert [phase["name"] for phase in run.phases] == ["publish"] * 3
