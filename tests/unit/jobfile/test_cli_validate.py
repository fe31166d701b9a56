"""``gpurun validate`` and ``gpurun init`` as they are typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def gpurun(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[3]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); from runner.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("print(1)\n")
    (tmp_path / "good.yaml").write_text("name: a\ncommand: [python, train.py]\noutputs: [m]\n")
    (tmp_path / "bad.yaml").write_text("name: a\ncommand: [python, train.py]\nresorces: {gpus: 1}\nqueue: maybe\n")
    return tmp_path


def test_good_and_bad_files_are_told_apart_and_the_exit_code_is_2(folder: Path) -> None:
    answer = gpurun(folder, "validate", "good.yaml", "bad.yaml", "no.yaml")
    assert answer.returncode == 2
    assert answer.stdout.splitlines() == [
        "ok  good.yaml  (command python, 1 GPU)",
        "bad.yaml:3:1: unknown key 'resorces': did you mean resources?",
        "bad.yaml:4:8: queue must be true or false, not 'maybe'",
        "no.yaml:1:1: there is no such file: `gpurun init` writes one to start from",
    ]
    assert gpurun(folder, "validate", "good.yaml").returncode == 0
    assert gpurun(folder, "validate").returncode == 2


def test_json_is_one_document_with_places(folder: Path) -> None:
    answer = gpurun(folder, "validate", "--json", "good.yaml", "bad.yaml")
    good, bad = json.loads(answer.stdout)["jobs"]
    assert (answer.returncode, good["ok"], good["job"]["name"], bad["ok"]) == (2, True, "a", False)
    assert [(problem["line"], problem["column"]) for problem in bad["problems"]] == [(3, 1), (4, 8)]


def test_a_warning_does_not_fail_a_file(folder: Path) -> None:
    (folder / "quiet.yaml").write_text("name: a\ncommand: [python, train.py]\n")
    answer = gpurun(folder, "validate", "quiet.yaml")
    assert (answer.returncode, answer.stderr) == (
        0,
        "warning: quiet.yaml: outputs: is empty, so nothing comes home but the log\n",
    )


def test_the_schema_is_json(folder: Path) -> None:
    assert "properties" in json.loads(gpurun(folder, "validate", "--schema").stdout)


def test_init_writes_a_file_that_validate_accepts_and_refuses_the_second_time(folder: Path) -> None:
    first = gpurun(folder, "init", "mine")
    assert first.returncode == 0 and "gpurun submit mine.yaml --host HOST" in first.stdout
    assert gpurun(folder, "validate", "mine.yaml").returncode == 0
    second = gpurun(folder, "init", "mine")
    assert second.returncode == 2 and "mine.yaml is there already" in second.stderr
