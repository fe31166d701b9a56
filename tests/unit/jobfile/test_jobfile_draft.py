"""``gpurun init``: whatever lies in the folder, the job file that is written validates, and nothing is overwritten."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import yaml

from runner.domain.errors import UserError
from runner.jobfile import InvalidJobFile, load
from runner.jobfile.drafting.draft import write_draft
from tests.support.hostile_names import hostile_tree
from tests.support.trials import trials

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
    (tmp_path / "data" / "a.txt").write_text("x")
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


NANOGPT = """\
import os, torch
from torch.distributed import init_process_group
out_dir = 'out'
eval_interval = 2000
dataset = 'openwebtext'
data_dir = os.path.join('data', dataset)
torch.save({}, os.path.join(out_dir, 'ckpt.pt'))
"""


@pytest.mark.parametrize(
    ("script", "beside", "outputs", "data"),
    [
        (NANOGPT, "", ("out",), ("data",)),
        ("p = argparse.ArgumentParser()\np.add_argument('--out-dir', '-o', default='./runs/a/')", "", ("runs/a",), ("data",)),
        ("from args import get", "def get(p):\n    p.add_argument('--save_path', default='model.pt')", ("model.pt",), ("data",)),
        ("from transformers import *\nT(output_dir='results', logging_dir='results/logs')", "", ("results",), ("data",)),
        ("import click\n@click.option('--checkpoint-dir', default='ckpt')\ndef f(): ...", "", ("ckpt",), ("data",)),
        ("import lightning as L\nL.Trainer().fit(m)", "", ("lightning_logs",), ("data",)),
        ("from lightning import Trainer\nTrainer(default_root_dir='l')", "", ("l",), ("data",)),
        ("class A:\n    output_dir: str = field(default='o')\n    train_file: str = 'corpus.txt'", "", ("o",), ("data", "corpus.txt")),
        ("def main(*, work_dir='w', train_path='data/a.txt'): ...", "", ("w",), ("data",)),
        ("out_dir = '/tmp/out'\nlog_dir = f'{out_dir}/x'\nopen('../up', 'w'); open('data/new', 'w')", "", ("outputs",), ("data",)),
        ("model.save_pretrained('best'); torch.save(x, 'deep/er/last.pt')", "", ("best", "deep/er"), ("data",)),
    ],
)  # fmt: skip
def test_what_the_program_writes_and_reads_by_its_own_defaults(
    script: str, beside: str, outputs: tuple[str, ...], data: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(script)
    (tmp_path / "args.py").write_text(beside)
    (tmp_path / "corpus.txt").write_text("x")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("x")
    file, _ = write_draft(tmp_path, "a")
    job = load(tmp_path / file)
    assert (job.outputs, job.data) == (outputs, data)


LINES = [
    "import torch",
    "import sklearn, cv2, yaml",
    "from transformers import Trainer",
    "import lightning",
    "import deepspeed",
    "import hydra",
    "from accelerate import Accelerator",
    "import helpers",
    "import src.model",
    "import wandb",
    "import my_überpackage",
    "x = (",
    "\tindent",
    "out_dir = 'out'",
    "out_dir = 'a b'",
    "output_dir = 'data'",
    "save_dir = 'data/sub'",
    "log_dir = '..'",
    "results_dir = 'src'",
    "work_dir = '.'",
    "p.add_argument('--out_dir', default='{x}')",
    "p.add_argument('--train_file', default='data/a.txt')",
    "f(output_dir='~/x', log_dir='-x')",
    "p.add_argument('--data-dir', default='link')",
    "AutoModel.from_pretrained('a/b')",
    "AutoModel.from_pretrained('../x/y')",
    "AutoModel.from_pretrained('hf_" + "x" * 34 + "')",
    "torch.save(m, 'ckpt/last.pt')",
    "m.save_pretrained('models/" + "n" * 200 + "')",
    "os.environ['LOCAL_RANK']",
    "if __name__ == '__main__': main()",
    "out_dir = 'CON: [a, b]'",
    "out_dir = '&x'",
    "out_dir = 'null'",
]
REQUIREMENTS = [
    "torch",
    "torch==2.*",
    "-e .",
    "-r other.txt",
    "--index-url https://user:password@example.org/simple",
    "git+https://github.com/a/b",
    "sklearn",
    "a @ file:///home/x",
    "numpy  # fast",
    "transformers=4.40",
    "pip install x",
    "ünicode",
    "",
    "# only a comment",
    "./local",
    "a; b; c",
]
SCRIPTS = ["train.py", "main.py", "src/train.py", "my script.py", "a'b.py", "ü.py", "-x.py"]


def project(chance: Random, folder: Path, canary: Path) -> None:
    """A small project: some of it sensible, some of it not."""
    folder.mkdir()
    ran = f"open({str(canary)!r}, 'w').close()"  # whoever runs or imports one of the files leaves this file behind
    for name in chance.sample(["src", "data", "models", "outputs", "jobs", "logs", "datasets"], chance.randrange(5)):
        (folder / name).mkdir()
        if chance.random() < 0.6:
            (folder / name / chance.choice(["a.txt", "__init__.py", "b.bin"])).write_text(ran)
    if chance.random() < 0.3:
        (folder / "link").symlink_to(chance.choice(["/etc", "data", "nowhere", str(folder)]))
    for name in chance.sample(SCRIPTS, chance.randrange(3)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("\n".join([ran, *chance.sample(LINES, chance.randrange(9))]))
    if chance.random() < 0.3:
        (folder / "helpers.py").write_text("\n".join([ran, *chance.sample(LINES, 4)]))
    lines = chance.sample(REQUIREMENTS, chance.randrange(6))
    if chance.random() < 0.5:
        (folder / "requirements.txt").write_text("\n".join(lines))
    if chance.random() < 0.3:
        (folder / "pyproject.toml").write_text(f"[project]\nname = 'x'\ndependencies = {lines!r}\n")


@trials("project", quick=3, full=20)
def test_whatever_lies_in_a_project_its_job_file_validates_and_nothing_of_it_was_run(
    tmp_path: Path, chance: Random
) -> None:
    for number in range(20):
        folder = tmp_path / f"{number}-{chance.choice(['project', 'Ümlaut 1', '日本', '-x'])}"
        project(chance, folder, tmp_path / "ran")
        before = set(folder.rglob("*"))
        file, findings = write_draft(folder)
        job = load(folder / file)
        shown = [str(each.relative_to(folder)) for each in sorted(before)], (folder / file).read_text()
        assert job.outputs and job.command and set(folder.rglob("*")) == {*before, folder / file}, shown
        assert all((folder / str(each)).exists() for each in job.data), shown
        assert not any(f"{name}/".startswith(f"{each}/") for name in job.outputs for each in job.data), shown
        assert (job.command[0] == "python" and "-c" in job.command) == (findings.script is None), shown
    assert not (tmp_path / "ran").exists()


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
