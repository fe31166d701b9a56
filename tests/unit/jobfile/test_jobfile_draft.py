"""``gpurun init``: whatever lies in the folder, the job file that is written validates, and nothing is overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from runner.domain.errors import UserError
from runner.jobfile import InvalidJobFile, load
from runner.jobfile.draft import write_draft
from tests.support.hostile_names import hostile_tree

SCRIPT = """\
import argparse
import torch, wandb
import sklearn.metrics
from transformers import AutoModel
import helpers

model = AutoModel.from_pretrained("google/embeddinggemma-300m")
torch.save(model, "checkpoints/last.pt")
"""


def test_an_empty_folder_gets_a_job_that_validates(tmp_path: Path) -> None:
    file, findings = write_draft(tmp_path, "first")
    job = load(tmp_path / file)
    assert (str(file), job.name, job.command and job.command[0]) == ("first.yaml", "first", "python")
    assert "placeholder" in findings.notes[0]


def test_what_the_script_needs_is_found_by_reading_it(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "helpers.py").write_text("")
    (tmp_path / "data").mkdir()
    (tmp_path / "jobs").mkdir()
    file, _ = write_draft(tmp_path, "legal")
    job = load(tmp_path / file)
    assert str(file) == "jobs/legal.yaml" and job.folder == tmp_path
    assert job.command == ("python", "train.py")
    assert job.environment.requirements == ("scikit-learn", "torch", "transformers", "wandb")
    assert job.hub.models == ("google/embeddinggemma-300m",)
    assert (job.data, job.outputs, job.secrets) == (("data",), ("checkpoints",), ("WANDB_API_KEY",))


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (
            "import torch.distributed as dist",
            ("torchrun", "--standalone", "--nproc-per-node", "{processes}", "main.py"),
        ),
        (
            "rank = int(os.environ['LOCAL_RANK'])",
            ("torchrun", "--standalone", "--nproc-per-node", "{processes}", "main.py"),
        ),
        ("from accelerate import Accelerator", ("accelerate", "launch", "--num_processes", "{processes}", "main.py")),
        ("print('alone')", ("python", "main.py")),
    ],
)
def test_the_launcher_follows_from_the_script(line: str, command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(line + "\n")
    file, _ = write_draft(tmp_path, "a")
    assert load(tmp_path / file).command == command


def test_the_project_file_and_requirements_are_used(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\ndependencies = ["torch>=2.6", "a @ file:///home/me/a"]\n'
    )
    file, _ = write_draft(tmp_path, "one")
    assert load(tmp_path / file).environment.requirements == ("torch>=2.6",)
    (tmp_path / "requirements.txt").write_text("numpy\n")
    file, _ = write_draft(tmp_path, "two")
    assert yaml.safe_load((tmp_path / file).read_text())["environment"]["requirements"] == "requirements.txt"


def test_requirements_that_cannot_be_installed_on_a_box_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("numpy  # fast\n-e .\n")
    file, _ = write_draft(tmp_path, "a")
    assert load(tmp_path / file).environment.requirements == ("numpy",)


def test_the_name_comes_from_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "My Project (2)"
    folder.mkdir()
    assert write_draft(folder)[1].name == "my-project-2"
    strange = tmp_path / "日本"
    strange.mkdir()
    assert write_draft(strange)[1].name == "job"


def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("mine\n")
    with pytest.raises(UserError, match="already"):
        write_draft(tmp_path, "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]
    assert (tmp_path / "a.yaml").read_text() == "mine\n"


def test_a_name_that_no_job_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be called"):
        write_draft(tmp_path, "../up")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_code_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InvalidJobFile, match=r"a\.yaml:\d+:\d+: code\.path"):
        write_draft(tmp_path, "a")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_hostile_names_and_unreadable_sources_gets_a_job(tmp_path: Path) -> None:
    hostile_tree(tmp_path)
    (tmp_path / "train.py").write_bytes(b"\xff\x00 not python (((")
    (tmp_path / "pyproject.toml").write_bytes(b"\xff[[[")
    (tmp_path / 'quo"te.py').write_text("from_pretrained('a: b/c')\n")
    file, _ = write_draft(tmp_path, "a")
    assert load(tmp_path / file).command == ("python", "train.py")
