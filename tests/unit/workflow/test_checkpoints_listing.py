"""What a run has to resume from or to try, by the manifests on the box or in what was fetched."""

import json
import os

import pytest

from remote_payload.agent.run.checkpoints.listing import list_checkpoints
from runner.domain.answers.reading import Fields, Impossible
from runner.domain.answers.verbs import read_checkpoints

WRITTEN = 1_750_000_000.0


def checkpoint(outputs, name, manifest, where="checkpoints"):
    folder = outputs / where / name
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    os.utime(folder / "manifest.json", (WRITTEN, WRITTEN))
    return folder


def described(step, *files, **facts):
    return {"step": step, "files": [{"path": path, "size": size} for path, size in files], **facts}


def facts(name):
    return {"path": f"checkpoints/{name}", "at": WRITTEN}


def test_complete_ones_are_listed_with_step_metrics_and_size(tmp_path):
    whole = [("model.safetensors", 100), ("optimizer.safetensors", 200)]
    checkpoint(tmp_path, "step-000010", described(10, *whole, metrics={"loss": 3.5}))
    checkpoint(tmp_path, "step-000005", described(5, ("model.safetensors", 100)))
    (tmp_path / "checkpoints" / "step-000020").mkdir()  # being written
    (tmp_path / "checkpoints" / ".tmp-step-000030").mkdir()
    listed = list_checkpoints(str(tmp_path))
    assert {name: listed[name] for name in ("checkpoints", "best")} == {
        "checkpoints": [
            {"name": "step-000005", **facts("step-000005"), "step": 5, "metrics": {}, "size": 100, "resumable": False},
            {
                "name": "step-000010",
                **facts("step-000010"),
                "step": 10,
                "metrics": {"loss": 3.5},
                "size": 300,
                "resumable": True,
            },
        ],
        "best": None,
    }


def test_the_finished_model_has_its_own_metrics(tmp_path):
    folder = checkpoint(tmp_path, "best", described(None, ("model.safetensors", 7)), where="models")
    (folder / "metrics.json").write_text(json.dumps({"step": 12, "epoch": 1.0, "loss": 2.5, "note": "text"}))
    best = list_checkpoints(str(tmp_path))["best"]
    assert best["path"] == "models/best" and best["at"] == WRITTEN
    assert best["step"] == 12 and best["size"] == 7 and best["metrics"] == {"epoch": 1.0, "loss": 2.5}


def test_manifests_that_make_no_sense_are_passed_over(tmp_path):
    for number, manifest in enumerate(["{", "[]", "{}", '{"files": 3}']):
        checkpoint(tmp_path, f"step-{number}", manifest)
    checkpoint(tmp_path, "step-9", {"files": ["x", {"size": "y"}, {"path": "a", "size": 4}], "metrics": [1]})
    (found,) = list_checkpoints(str(tmp_path))["checkpoints"]
    assert found["size"] == 4 and found["metrics"] == {}
    nothing = list_checkpoints(str(tmp_path / "nothing"))
    assert nothing["checkpoints"] == [] and nothing["best"] is None


@pytest.mark.parametrize("path", ["", "/etc", "../other", "a/../../b", "a\x1bb", "-rf", ".ssh/id", None, 7])
def test_a_path_that_is_none_of_an_output_is_refused(path):
    entry = {"name": "step-1", "path": path, "step": 1, "metrics": {}, "size": 1, "resumable": True, "at": None}
    with pytest.raises(Impossible, match=r"checkpoints\[0\].path"):
        read_checkpoints(Fields({"checkpoints": [entry], "best": None}))
