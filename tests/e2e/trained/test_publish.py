"""From the box to the Hub: at the end of a run, and any time later; the token that writes is nowhere on the box."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import ModelCard

from remote_payload.recipes.evaluated import Column, Evaluation
from remote_payload.train.files import write_json
from tests.e2e.test_hub_line import MODEL, TOKEN, found, overrides, with_hub
from tests.e2e.test_hub_line import gated as gated
from tests.e2e.test_hub_line import legal as legal
from tests.support.cli import Gpurun
from tests.support.document_types import TYPES, differences
from tests.support.hub import Hub

COLUMN = Column("it", "fineweb-legal", False, "", "classifier", "cpu", "float32", "x", {"accuracy": 0.75})
MEASURED = Evaluation("/home/ada/test.jsonl", "0" * 64, 12, [COLUMN])
WRITER = "hf_" + "W8riterW8riterW8riterW8riterW8riterW"[:34]


def test_a_run_publishes_at_its_end_and_later_from_its_box(
    gpurun: Gpurun, gated: Hub, legal: Path, tmp_path: Path
) -> None:
    with_hub(gpurun, gated, TOKEN)
    gated.add_account(WRITER, "ada", "write", granted=("ada/legal", "ada/other", "ada/early", MODEL))
    gated.xet = tmp_path / "xet"
    gated.xet.mkdir()
    wanted = overrides("settings.publish.repository=ada/legal")
    refused = gpurun("submit", str(legal), "--host", "local", *wanted, check=3)
    assert "would have no token that may write" in refused.stderr and "secrets: [HF_PUBLISH_TOKEN]" in refused.stderr

    wanted += ["--set", "secrets=[HF_PUBLISH_TOKEN]"]
    gpurun.env["HF_PUBLISH_TOKEN"] = TOKEN  # it only reads
    assert "may only read" in gpurun("submit", str(legal), "--host", "local", *wanted, check=3).stderr

    gpurun.env["HF_PUBLISH_TOKEN"] = WRITER
    submitted = gpurun("submit", str(legal), "--host", "local", *wanted)
    assert "to ada/legal, as ada" in submitted.stderr
    log = gpurun("logs", "-f", timeout=280).stdout
    assert f"published: {gated.endpoint}/ada/legal" in log
    (tmp_path / "README.md").write_bytes(gated.files("ada/legal")["README.md"])
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.get("base_model") == MODEL and card.data.get("base_model_relation") == "adapter"
    assert card.data.get("eval_results") and gated.models["ada/legal"].private
    about = json.loads(gated.files("ada/legal")["gpurun.json"])
    assert about["base"]["id"] == MODEL and ".gpurun-box" not in json.dumps(about)

    looked = gpurun.json("publish", "fineweb-legal", "ada/other", "--on-box", "--dry-run")
    assert differences(looked, TYPES["Publish"], set()) == [] and looked["commit"] is None
    assert "ada/other" not in gated.models
    done = gpurun("publish", "fineweb-legal", "ada/other", "--on-box")
    assert done.stdout.splitlines()[-1] == f"{gated.endpoint}/ada/other"
    same = {name: content for name, content in gated.files("ada/legal").items() if name != "README.md"}
    assert same.items() <= gated.files("ada/other").items()
    assert "nothing to upload" in gpurun("publish", "fineweb-legal", "ada/other", "--on-box").stdout
    # The one checkpoint has the weights of the finished model: converted on the box, it is the same files. Nothing of it came home.
    (step, _) = gpurun.json("checkpoints", "fineweb-legal")["checkpoints"]
    assert not step["here"]
    write_json(tmp_path / "evaluation.json", MEASURED.as_json())
    evaluated = ["--evaluation", str(tmp_path)]
    gpurun("publish", f"fineweb-legal:{step['name']}", "ada/early", "--on-box", *evaluated)
    early, legal_ = gated.files("ada/early"), gated.files("ada/legal")
    assert early.keys() == legal_.keys() and not {"state.json", "manifest.json"} & early.keys()
    for name in (
        "adapter_model.safetensors",
        "head.safetensors",
        "adapter_config.json",
        "tokenizer.json",
        "smoke/inputs.jsonl",
    ):
        assert early[name] == legal_[name], name
    assert b"| accuracy | 0.7500 |" in early["README.md"] and b"/home/ada" not in early["README.md"]
    told = gpurun("publish", "fineweb-legal:step-009999", "ada/early", "--on-box", check=2).stderr
    assert "no complete checkpoint step-009999 on the box" in told
    gpurun.env["HF_PUBLISH_TOKEN"] = TOKEN
    assert "may only read" in gpurun("publish", "fineweb-legal", "ada/other", "--on-box", check=3).stderr
    assert found(gpurun.home, WRITER.encode()) == [] and found(Path("/dev/shm"), WRITER.encode()) == []
