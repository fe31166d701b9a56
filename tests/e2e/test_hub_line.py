"""jobs/legal.yaml from a gated hub to a tested model: login checked here, model downloaded there, no token left anywhere."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Gpurun
from tests.support.hub import Hub
from tests.support.models.tiny_models import save_tiny_model

MODEL = "google/embeddinggemma-300m"
TOKEN = "hf_" + "C4naryT0kenThatMustBeNowhere" + "x" * 6
TINY = [
    "settings.max_length=48", "settings.epochs=1", "settings.batch.size=8", "resources.gpus=0", "resources.vram=null",
    "resources.disk=null", "data=[batches]", "settings.train=batches",
]  # fmt: skip


@pytest.fixture
def gated(hub: Hub, tmp_path: Path) -> Hub:
    hub.add_model(MODEL, save_tiny_model("gemma3", tmp_path / "tiny-gemma"), gated=True)
    hub.add_account(TOKEN, "ada", granted=(MODEL,))
    return hub


@pytest.fixture
def legal(tmp_path: Path) -> Path:
    """The real job file, beside data in the report's format."""
    folder = tmp_path / "project" / "jobs"
    (tmp_path / "project" / "batches").mkdir(parents=True)
    folder.mkdir()
    (folder / "legal.yaml").write_text(Path("jobs/legal.yaml").read_text())
    rows = [
        {"text": f"clause {number} " + "whereas the party " * (number % 6), "score": number % 6} for number in range(60)
    ]
    (tmp_path / "project" / "batches" / "one.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "legal.yaml"


def overrides(*more: str) -> list[str]:
    return [word for value in (*TINY, *more) for word in ("--set", value)]


def with_hub(gpurun: Gpurun, hub: Hub, token: str | None) -> None:
    gpurun.env |= {"HF_ENDPOINT": hub.endpoint, **({"HF_TOKEN": token} if token else {})}


def found(folder: Path, needle: bytes) -> list[str]:
    """Files below ``folder`` that hold ``needle`` in their name or content."""
    hits = []
    for top, _, names in os.walk(folder):
        for name in names:
            path = Path(top, name)
            if path.is_file() and not path.is_symlink() and needle in path.read_bytes() + os.fsencode(path):
                hits.append(str(path))
    return hits


def test_a_gated_model_is_trained_fetched_and_tested_and_the_token_is_nowhere(
    gpurun: Gpurun, gated: Hub, legal: Path
) -> None:
    with_hub(gpurun, gated, TOKEN)
    submitted = gpurun("submit", str(legal), "--host", "local", *overrides())
    assert "as ada" in submitted.stderr
    followed = gpurun("logs", "-f", timeout=280)
    assert gated.downloads("model.safetensors"), "the box did not download the weights"
    gpurun("fetch")
    into = Path(gpurun.json("status")["fetched_into"])
    best = into / "models/best"
    names = {path.name for path in best.iterdir()}
    assert {
        "adapter_config.json",
        "adapter_model.safetensors",
        "head.safetensors",
        "metrics.json",
        "README.md",
        "gpurun.json",
    } <= names
    assert list((into / "logs").rglob("events.out.tfevents*"))
    assert "binary_f1_3" in json.loads((best / "metrics.json").read_text())
    tested = gpurun.json("smoke-test", "--device", "cpu")
    assert tested, tested
    assert TOKEN not in submitted.stdout + submitted.stderr + followed.stdout + followed.stderr
    assert found(gpurun.home, TOKEN.encode()) == []
    assert found(Path("/dev/shm"), TOKEN.encode()) == []


@pytest.mark.parametrize("token", [None, "hf_" + "wrongwrongwrongwrongwrong"])
def test_without_access_nothing_is_pushed_and_the_page_to_ask_is_named(
    gpurun: Gpurun, gated: Hub, legal: Path, token: str | None
) -> None:
    if token:
        gated.add_account(token, "bob", granted=())
    with_hub(gpurun, gated, token)
    refused = gpurun("submit", str(legal), "--host", "local", *overrides(), check=3)
    assert MODEL in refused.stderr
    assert "hf auth login" in refused.stderr if token is None else f"/{MODEL}" in refused.stderr
    assert not (gpurun.box_root / "data").exists() or not list((gpurun.box_root / "data").iterdir())
    checked = gpurun.json("check", str(legal), "--host", "local", *overrides(), check=3)
    verdicts: dict[str, Any] = {finding["what"]: finding["verdict"] for finding in checked["findings"]}
    assert verdicts["Hugging Face"] == "fail"


def test_a_token_that_may_write_stays_here_unless_the_job_allows_it(gpurun: Gpurun, gated: Hub, legal: Path) -> None:
    writer = "hf_" + "writewritewritewritewrite"
    gated.add_account(writer, "eve", granted=(MODEL,), role="write")
    with_hub(gpurun, gated, writer)
    refused = gpurun("submit", str(legal), "--host", "local", *overrides(), check=3)
    assert "write" in refused.stderr and writer not in refused.stderr
    gpurun("check", str(legal), "--host", "local", *overrides("hub.allow_write_token=true"))
