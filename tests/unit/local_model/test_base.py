"""Which base model an adapter may have, and what fits into memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from runner.domain.errors import SmokeTestFailed
from runner.domain.job import Hub, Job
from runner.domain.progress import Silent
from runner.local_model import base as module
from runner.local_model.base import BaseModel, choose_dtype, required_base, trained_from
from runner.local_model.model_folder import ModelFolder, read_model_folder

COMMIT = "c" * 40
JOB = Job("legal", "sft", settings={"model": "acme/base", "revision": "v1"})


def adapter(
    folder: Path,
    base_id: str | None = None,
    base_name: str | None = None,
    revision: str | None = None,
    path: str | None = None,
) -> ModelFolder:
    """An adapter whose gpurun.json and adapter_config.json name a base."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base_name}))
    about = {"format": 1, "kind": "causal_lm", "base": {"id": base_id, "revision": revision, "path": path}}
    if base_id:
        (folder / "gpurun.json").write_text(json.dumps(about))
    save_file({"w": torch.zeros(1)}, folder / "adapter_model.safetensors")
    return read_model_folder(folder)


def test_a_whole_model_needs_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    save_file({"w": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert required_base(read_model_folder(tmp_path), JOB) is None


@pytest.mark.parametrize(
    ("base_id", "base_name"),
    [
        ("acme/base", "acme/base"),
        ("acme/base", None),
        ("acme/base", "/root/.gpurun-box/cache/hf/hub/models--acme--base/snapshots/" + COMMIT),
        (None, "acme/base"),
    ],
)
def test_the_jobs_own_base_is_taken_at_the_commit_it_was_trained_on(
    tmp_path: Path, base_id: str | None, base_name: str | None
) -> None:
    model = adapter(tmp_path / "m", base_id, base_name, COMMIT)
    assert required_base(model, JOB.at(tmp_path)) == BaseModel("acme/base", COMMIT if base_id else "v1", None)


@pytest.mark.parametrize(
    ("base_id", "base_name"),
    [
        ("evil/base", "evil/base"),
        ("evil/base", "acme/base"),
        ("acme/base", "evil/base"),
        (None, "evil/base"),
        (None, "/tmp/models--evil--base/snapshots/x"),
        ("acme/base-evil", None),
        ("evil/acme/base", None),
    ],
)
def test_a_redirected_base_is_refused(tmp_path: Path, base_id: str | None, base_name: str | None) -> None:
    with pytest.raises(SmokeTestFailed, match="as its base model, and the job named acme/base") as refused:
        required_base(adapter(tmp_path / "m", base_id, base_name), JOB)
    assert refused.value.exit_code == 6


def test_a_program_of_ones_own_may_use_the_models_it_declared(tmp_path: Path) -> None:
    job = Job("legal", command=("train",), hub=Hub(models=("acme/one", "acme/two")))
    assert required_base(adapter(tmp_path / "m", None, "acme/two"), job) == BaseModel("acme/two", None, None)
    with pytest.raises(SmokeTestFailed, match="acme/one or acme/two"):
        required_base(adapter(tmp_path / "n", None, "evil/base"), job)


def test_a_base_that_the_job_named_as_a_folder_is_taken_from_there(tmp_path: Path) -> None:
    (tmp_path / "code/models/base").mkdir(parents=True)
    (tmp_path / "code/models/base/config.json").write_text("{}")
    job = Job("legal", "sft", settings={"model": "./models/base"})
    model = adapter(tmp_path / "m", "./models/base", "./models/base")
    assert required_base(model, job.at(tmp_path / "code")) == BaseModel(
        "./models/base", None, tmp_path / "code/models/base"
    )
    with pytest.raises(SmokeTestFailed, match="is not on this machine"):
        required_base(model, job.at(tmp_path))


def test_without_a_job_only_a_commit_counts_as_a_revision(tmp_path: Path) -> None:
    strange = adapter(tmp_path / "m", "acme/base", None, "refs/pr/1")
    assert required_base(strange, None) == BaseModel("acme/base", None, None)


def test_an_adapter_that_names_no_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SmokeTestFailed, match="does not name its base model"):
        required_base(adapter(tmp_path / "m"), None)


@pytest.mark.parametrize(("memory", "expected"), [(1000, "float32"), (300, "bfloat16"), (100, None)])
def test_the_dtype_is_the_widest_that_fits(
    tmp_path: Path, memory: int, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 numbers: 400 bytes in fp32, 200 in bf16, of which 70 % of the memory must hold them."""
    monkeypatch.setattr(module.os, "sysconf", lambda name: memory if name == "SC_PHYS_PAGES" else 1)
    base = tmp_path / "base"
    base.mkdir()
    save_file({"w": torch.zeros(99)}, base / "model.safetensors")
    model = adapter(tmp_path / "m", "acme/base")
    if expected:
        assert choose_dtype(model, base, Silent(), elsewhere="") == expected
    else:
        with pytest.raises(SmokeTestFailed, match="for its weights") as refused:
            choose_dtype(model, base, Silent(), elsewhere="Rent a larger one.")
        assert refused.value.hint == "Rent a larger one."


def test_an_optimizers_state_needs_no_memory_and_a_base_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "sysconf", lambda name: 600 if name == "SC_PHYS_PAGES" else 1)
    for name, size in (("checkpoint", 100), ("base", 90)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        save_file({"w": torch.zeros(size)}, tmp_path / name / "model.safetensors")
    save_file({"w": torch.zeros(200)}, tmp_path / "checkpoint/optimizer.safetensors")
    model = read_model_folder(tmp_path / "checkpoint")
    assert choose_dtype(model, None, Silent(), elsewhere="") == "float32"
    assert choose_dtype(model, tmp_path / "base", Silent(), elsewhere="") == "bfloat16"


def test_what_training_began_with_is_what_the_job_names(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text("{}")
    model, local = adapter(tmp_path / "m", "acme/base"), adapter(tmp_path / "n", "base", path="base")
    assert trained_from(model, JOB.at(tmp_path)) == BaseModel("acme/base", "v1", None)
    assert trained_from(local, Job("a", "sft", settings={"model": "base"}).at(tmp_path)) == BaseModel(
        "base", None, tmp_path / "base"
    )
    assert trained_from(model, Job("a", "pretrain", settings={"model": {"layers": 2}})) is None
    assert trained_from(model, Job("a", command=("train",))) is None


@pytest.mark.parametrize("name", ["base", "models/base", "./models/base"])
def test_a_base_that_was_a_folder_and_is_not_here_is_never_taken_from_the_hub(tmp_path: Path, name: str) -> None:
    """models/base is also the form of a repository's name, and that repository is a stranger's."""
    model = adapter(tmp_path / "m", name, "./" + name.removeprefix("./"), path=name)
    job = Job("a", "sft", settings={"model": name}).at(tmp_path)
    for find in (
        lambda: required_base(model, None),
        lambda: required_base(model, job),
        lambda: trained_from(model, job),
    ):
        with pytest.raises(SmokeTestFailed, match=r"base' of .*/m is not on this machine") as refused:
            find()
        assert "Nothing was downloaded" in refused.value.meaning
