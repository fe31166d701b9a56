"""What cannot be sent is refused or named, what looks like a secret is named."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from runner.domain.errors import UserError
from runner.domain.job import Job, data_place
from runner.domain.recorded_job import read_job
from runner.jobfile import InvalidJobFile, load
from runner.workflow.submission.plan import make_plan


def job(folder: Path, **fields: object) -> Job:
    return read_job({"name": "a", "command": ["python", "train.py"], "outputs": ["models"], **fields}, folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    (folder / "train.py").write_text("x")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("text")
    return folder


def unreadable(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """stand_in: root may read everything."""
    real = os.open

    def refused(path: Any, *rest: Any, **more: Any) -> int:
        if Path(path).name in names:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", refused)


def test_an_unreadable_file_is_refused_by_name_unless_it_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "mine.bin").write_text("x")
    (folder / "mine.bin").chmod(0o600)
    unreadable(monkeypatch, "mine.bin")
    with pytest.raises(UserError, match=r"code: 1 file \(mine.bin\) cannot be read by this user"):
        make_plan(job(folder))
    assert make_plan(job(folder, code={"exclude": ["mine.bin"]})).warnings == []


def test_an_unreadable_data_file_is_refused_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.txt", "b.txt"):
        (folder / "data" / name).write_text("x")
        (folder / "data" / name).chmod(0o600)
    unreadable(monkeypatch, "b.txt")
    with pytest.raises(UserError, match=r"data: 1 file \(b.txt\) cannot be read"):
        make_plan(job(folder, data=["data"]))


def test_links_that_lead_out_are_named_and_data_of_nothing_else_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "data" / "big").symlink_to(tmp_path / "corpus")
    (folder / "shared.py").symlink_to(tmp_path / "corpus" / "a.txt")
    with pytest.raises(UserError, match=r"data: nothing in .* can be sent: 1 link \(big\) to places outside of it"):
        make_plan(job(folder, data=["data"]))
    (folder / "data" / "small.txt").write_text("x")
    code, data = make_plan(job(folder, data=["data"])).warnings
    assert "code: not sent, links that leave the folder: shared.py" in code and "as: shared.py}" in code
    assert "data: not sent, links that leave the folder: big" in data


def test_secrets_by_their_names_stay_here_and_are_named(folder: Path) -> None:
    for name in (
        "credentials.json",
        "client_secret_1.apps.json",
        ".env",
        "passwords.txt",
        "tokenizer.json",
        "secretary.py",
    ):
        (folder / name).write_text("x")
    plan = make_plan(job(folder, environment={"variables": {"WANDB_API_KEY": "abc", "MAX_TOKENS": "5"}}))
    assert plan.code is not None
    sent = [entry.path for entry in plan.code.selection.files]
    assert sent == ["passwords.txt", "secretary.py", "tokenizer.json", "train.py"]
    variable, left, suspicious = plan.warnings
    assert "WANDB_API_KEY looks like a secret" in variable and "secrets: [WANDB_API_KEY]" in variable
    assert "not sent, secrets by their names: .env, client_secret_1.apps.json, credentials.json" in left
    assert "sent, though the name looks like a secret's: passwords.txt" in suspicious


def test_data_comes_from_anywhere_and_has_a_place_in_the_working_directory(folder: Path, tmp_path: Path) -> None:
    (folder / "data" / "link").symlink_to(tmp_path / "corpus")
    elsewhere = str(tmp_path / "corpus")
    entries = {
        "data": ("data", folder / "data"),
        "./data/": ("data", folder / "data"),
        "../corpus": ("corpus", tmp_path / "corpus"),
        elsewhere: ("corpus", tmp_path / "corpus"),
        "data/link": ("data/link", folder / "data" / "link"),
        str(folder / "data"): ("data", folder / "data"),
    }
    assert {written: data_place(written, folder) for written in entries} == entries
    plan = make_plan(job(folder, data=[{"path": elsewhere, "as": "data/x"}, "data/link", "../corpus/a.txt"]))
    assert [(tree.name, [entry.path for entry in tree.selection.files], tree.member) for tree in plan.data] == [
        ("data/x", ["a.txt"], None),
        ("data/link", ["a.txt"], None),
        ("a.txt", ["a.txt"], "a.txt"),
    ]
    assert read_job(plan.job.wire(), folder).data_places == plan.job.data_places


@pytest.mark.parametrize("name", ["/x", "../x", "a/../../x", "", ".", "~/x"])
def test_a_place_outside_of_the_working_directory_is_refused(folder: Path, name: str) -> None:
    body = {"name": "a", "command": ["python", "train.py"], "outputs": ["m"], "data": [{"path": "data", "as": name}]}
    (folder / "job.yaml").write_text(json.dumps(body))
    with pytest.raises(InvalidJobFile, match=r"data\[0\]\.as must be a path inside the working directory"):
        load(folder / "job.yaml")
