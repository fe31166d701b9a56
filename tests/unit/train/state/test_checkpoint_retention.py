"""Old checkpoints may give up what only resuming needs, and say so when somebody wants to resume from them."""

import pytest
from safetensors.torch import load_file

from remote_payload.train.errors import InputError
from remote_payload.train.folders import read_manifest
from remote_payload.train.state.checkpoint import checkpoints_in, find_checkpoint, strip_checkpoints
from tests.support.models.toy_training import toy_run, toy_train

EVERY_STEP = {"checkpoint": {"every_steps": 1, "keep": None}, "epochs": 1.33}  # four steps


def trained(folder, **checkpoint):
    settings = {**EVERY_STEP, "checkpoint": {**EVERY_STEP["checkpoint"], **checkpoint}}
    run = toy_run(folder, settings)
    toy_train(run)
    return run


def names(folder, resumable):
    return [found.path.name for found in checkpoints_in(folder) if found.resumable == resumable]


def test_only_the_latest_can_be_resumed_from_and_all_keep_their_weights(tmp_path):
    run = trained(tmp_path, resumable=2)
    assert names(run.checkpoints, True) == ["step-000003", "step-000004"]
    assert names(run.checkpoints, False) == ["step-000001", "step-000002"]
    for found in checkpoints_in(run.checkpoints, hashes=True):
        assert load_file(found.path / "model.safetensors")
    old = run.checkpoints / "step-000001"
    assert {path.name for path in old.iterdir()} == {"model.safetensors", "state.json", "manifest.json"}


def test_the_size_of_an_old_one_is_about_a_third(tmp_path):
    run = trained(tmp_path, resumable=1)
    old, new = (sum(p.stat().st_size for p in found.path.iterdir()) for found in checkpoints_in(run.checkpoints)[2:])
    assert old < 0.4 * new


def test_resuming_from_an_old_one_names_those_that_can_be_resumed_from(tmp_path):
    run = trained(tmp_path, resumable=1)
    with pytest.raises(InputError, match="step-000002 kept only its weights; to be resumed from: step-000004"):
        find_checkpoint("step-000002", run.checkpoints)
    assert find_checkpoint("auto", run.checkpoints).name == "step-000004"


def test_auto_passes_over_what_cannot_be_resumed_from(tmp_path):
    run = trained(tmp_path)
    (run.checkpoints / "step-000004" / "manifest.json").unlink()
    strip_checkpoints(run.checkpoints, 1)
    assert find_checkpoint("auto", run.checkpoints).name == "step-000003"


def test_an_interruption_between_manifest_and_files_leaves_a_complete_checkpoint(tmp_path, monkeypatch):
    run = trained(tmp_path)
    monkeypatch.setattr("pathlib.Path.unlink", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        strip_checkpoints(run.checkpoints, 1)
    monkeypatch.undo()
    first = run.checkpoints / "step-000001"
    assert read_manifest(first, hashes=True) is not None and (first / "optimizer.safetensors").exists()
    strip_checkpoints(run.checkpoints, 1)
    assert not (first / "optimizer.safetensors").exists()


def test_nothing_is_given_up_while_the_newest_is_torn(tmp_path):
    run = trained(tmp_path)
    newest = run.checkpoints / "step-000004" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"\0")
    assert strip_checkpoints(run.checkpoints, 1) == []
    assert names(run.checkpoints, False) == []
