"""The command itself: once with the real process that loads models, else in this one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from runner.cli.group import gpurun
from runner.domain.errors import UserError
from tests.support.document_types import TYPES, differences
from tests.support.models.exported import call_instead_of_a_process
from tests.support.models.smoke_models import causal_run, record_fetched


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_a_folder_is_exported_by_the_real_process(tmp_path: Path) -> None:
    causal_run(tmp_path)
    done = CliRunner().invoke(gpurun, ["export", "./models/best", "--merged", "--into", "out", "--json"])
    document = json.loads(done.stdout)
    assert done.exit_code == 0 and not differences(document, TYPES["Export"], set())
    (made,) = document["exports"]
    assert made["path"] == "out/merged" and made["compared_with"] == "box" and not made["comparison"]["problems"]


def test_a_fetched_run_is_exported_by_its_name(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call_instead_of_a_process(monkeypatch)
    causal_run(tmp_path)
    run = record_fetched(home, tmp_path / "models", tmp_path)
    done = CliRunner().invoke(gpurun, ["export", "legal", "--merged", "--dtype", "bfloat16"])
    assert done.exit_code == 0, done.output
    place, what, *verdict = done.stdout.splitlines()
    assert place == f"{run.run_id}-export/merged" and (tmp_path / place / "model.safetensors").is_file()
    assert what.endswith("bfloat16, 4 layers merged") and verdict[-1] == "passed" and "on the box" in verdict[1]
    assert max(map(len, done.stdout.splitlines())) <= 80
    modelfile = CliRunner().invoke(gpurun, ["export", "legal", "--merged", "--ollama", "--into", "two"])
    assert modelfile.stdout.splitlines()[-2:] == [
        "two/Modelfile",
        "for the float32 weights that were tested; Ollama itself was not started",
    ]
    again = CliRunner().invoke(gpurun, ["export", "legal", "--merged"])
    assert isinstance(again.exception, UserError) and "is there already" in again.exception.message


def test_what_to_export_must_be_said() -> None:
    done = CliRunner().invoke(gpurun, ["export"])
    assert done.exit_code == 2 and "--merged" in done.output
