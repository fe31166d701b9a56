"""What is sent: git decides over the ordinary, gpurun over secrets, and no link leads out."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from runner.domain.errors import UserError
from runner.domain.job import Job
from runner.domain.recorded_job import read_job
from runner.push.preview import preview
from runner.push.selection import Selection, select_code, select_data
from runner.workflow.submission.plan import make_plan
from tests.support.hostile_names import hostile_tree

HUB_TOKEN = "hf_" + "abcdefghijABCDEFGHIJabcdefghijABCD"
KEY_BLOCK = "-----BEGIN OPENSSH " + "PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU\n"


def write(folder: Path, files: dict[str, str]) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def job(folder: Path, **fields: object) -> Job:
    return read_job({"name": "a", "command": ["python", "train.py"], **fields}, folder)


def sent(selection: Selection) -> list[str]:
    return [entry.path for entry in selection.files]


def reasons(selection: Selection) -> dict[str, str]:
    return {left.path: left.reason for left in selection.left_out}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    write(
        tmp_path,
        {
            "train.py": "print(1)\n",
            "src/model.py": "from hub import hf_hub_download\n",
            ".gitignore": "*.log\n/scratch/\nsub/*.tmp\n!keep.log\nkept-by-git.bin\n",
            "run.log": "x",
            "keep.log": "x",
            "scratch/big.bin": "x" * 1000,
            "scratch/inner/a": "y" * 10,
            "sub/a.tmp": "x",
            "sub/.gitignore": "!b.tmp\nc\n",
            "sub/b.tmp": "x",
            "sub/c": "x",
            "kept-by-git.bin": "tracked although it matches",
        },
    )
    git(tmp_path, "add", ".")
    git(tmp_path, "add", "--force", "kept-by-git.bin")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def test_gitignore_is_honoured_as_git_does_it(repository: Path) -> None:
    write(repository, {"untracked.py": "x"})
    selection = select_code(job(repository))
    kept = [
        ".gitignore",
        "keep.log",
        "kept-by-git.bin",
        "src/model.py",
        "sub/.gitignore",
        "sub/b.tmp",
        "train.py",
        "untracked.py",
    ]
    assert sent(selection) == kept
    assert reasons(selection) == {
        ".git": "version control",
        "run.log": "ignored by git",
        "scratch": "ignored by git",
        "sub/a.tmp": "ignored by git",
        "sub/c": "ignored by git",
    }
    scratch = next(left for left in selection.left_out if left.path == "scratch")
    assert (scratch.bytes, scratch.files, scratch.measured) == (1010, 2, True)


def test_a_folder_inside_a_repository_obeys_the_ignore_files_above_it(repository: Path) -> None:
    assert sent(select_code(job(repository / "sub"))) == [".gitignore", "b.tmp"]


def test_a_folder_that_its_repository_ignores_can_be_code(repository: Path) -> None:
    assert sent(select_code(job(repository / "scratch"))) == ["big.bin", "inner/a"]


def test_nested_repositories_are_asked_themselves(repository: Path) -> None:
    inner = repository / "vendored"
    inner.mkdir()
    git(inner, "init", "--quiet")
    write(inner, {".gitignore": "*.o\n", "a.c": "x", "a.o": "x", "run.py": "x"})
    selection = select_code(job(repository))
    assert {path for path in sent(selection) if path.startswith("vendored")} == {
        "vendored/.gitignore",
        "vendored/a.c",
        "vendored/run.py",
    }
    assert reasons(selection)["vendored/.git"] == "version control"
    assert reasons(selection)["vendored/a.o"] == "ignored by git"


def test_outside_a_repository_gitignore_counts_too(tmp_path: Path) -> None:
    write(tmp_path, {".gitignore": "*.log\n", "a.log": "x", "a.py": "x"})
    assert sent(select_code(job(tmp_path))) == [".gitignore", "a.py"]
    assert not (tmp_path / ".git").exists()


def test_git_is_asked_whatever_the_environment_says_of_it(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    assert "run.log" in reasons(select_code(job(repository)))


def test_a_repository_that_names_a_program_does_not_get_it_run(repository: Path) -> None:
    canary = repository.parent / "canary"
    hook = repository.parent / "hook"
    hook.write_text(f"#!/bin/sh\ntouch '{canary}'\n")
    hook.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(hook))
    select_code(job(repository))
    assert not canary.exists()


def test_without_git_an_ignore_file_is_not_silently_overlooked(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UserError, match="git is not installed"):
        select_code(job(repository))


def test_a_repository_that_git_cannot_read_is_an_error_with_gits_words(repository: Path) -> None:
    (repository / ".git/config").write_text("[broken\n")
    with pytest.raises(UserError, match="bad config"):
        select_code(job(repository))


SECRETS = {
    ".env": "A=1",
    ".env.local": "A=1",
    "prod.env": "A=1",
    ".envrc": "export A=1",
    "deep/er/server.pem": "x",
    "tls.key": "x",
    "id_rsa": "x",
    "id_ed25519": "x",
    ".netrc": "machine x",
    ".aws/credentials": "x",
    ".ssh/config": "x",
    ".gnupg/secring": "x",
    ".kube/config": "x",
    "kubeconfig": "x",
    ".npmrc": "x",
    "cert.p12": "x",
    "hub.py": f"login(token='{HUB_TOKEN}')\n",
    "aws.txt": "key = AKIA" + "IOSFODNN7EXAMPLE\n",
    "gh.sh": "export T=ghp_" + "a1B2" * 9 + "\n",
    "openai.toml": 'key = "sk-' + "proj-" + "Ab3d" * 12 + '"\n',
    "note.md": KEY_BLOCK,
    "google.json": '{"private_key": "-----BEGIN ' + 'PRIVATE KEY-----\\nMIIE"}\n',
}
HARMLESS = {
    "id_map.json": "{}",
    "environment.py": "x",
    "keys.py": "API_KEY = os.environ['API_KEY']\n",
    "hub_use.py": "from huggingface_hub import hf_hub_download, hf_raise_for_status\nhf_transfer_enabled_by_default_now_ok = 1\n",
    "style.css": ".task-sk-learn-very-long-class-name-which-goes-on-and-on-and-on { }\n",
    "doc.md": "export HF_TOKEN=hf_xxx, or sk-..., AKIAxxxx; a PRIVATE KEY----- block is refused\n",
}


def test_secrets_are_not_sent_whether_tracked_ignored_or_neither(repository: Path) -> None:
    for state in ("tracked", "ignored", "new"):
        write(repository / state, SECRETS)
    (repository / ".gitignore").write_text((repository / ".gitignore").read_text() + "/ignored/*\n")
    git(repository, "add", "--force", "tracked")
    selection = select_code(job(repository))
    assert not [path for path in sent(selection) if path.startswith(("tracked/", "ignored/", "new/"))]
    content = b"".join((repository / path).read_bytes() for path in sent(selection))
    assert HUB_TOKEN.encode() not in content
    found = reasons(selection)
    assert found["tracked/hub.py"] == "a Hugging Face token inside"
    assert found["new/note.md"] == "a private key inside"
    assert found["new/.env"] == "credentials by name"


def test_words_that_only_look_like_secrets_are_sent(tmp_path: Path) -> None:
    write(tmp_path, HARMLESS)
    assert sent(select_code(job(tmp_path))) == sorted(HARMLESS)


def test_a_token_is_found_anywhere_in_the_first_mebibyte_of_a_text(tmp_path: Path) -> None:
    filler = "word and word\n" * 70_000
    write(tmp_path, {"a.txt": filler[:900_000] + " " + HUB_TOKEN + "\n" + filler})
    (tmp_path / "binary").write_bytes(b"\0" + HUB_TOKEN.encode())
    assert sent(select_code(job(tmp_path))) == ["binary"]


def test_a_file_named_under_include_is_sent_whatever_the_rules_say(repository: Path) -> None:
    write(repository, {".env": "A=1", "hub.py": HUB_TOKEN, ".aws/config": "x", ".aws/credentials": "y"})
    included = [".env", "./run.log", "scratch/big.bin", ".aws/config", "hub.py"]
    selection = select_code(job(repository, code={"include": included, "exclude": ["hub.py"]}))
    assert {".env", "run.log", "scratch/big.bin", ".aws/config", "hub.py"} <= set(sent(selection))
    assert ".aws/credentials" not in sent(selection) and "scratch/inner/a" not in sent(selection)


def test_excludes_are_patterns_as_in_gitignore_and_win_over_tracking(repository: Path) -> None:
    write(repository, {"docs/a.md": "x", "docs/b.py": "x", "src/docs/c.md": "x", "data set/x": "x"})
    selection = select_code(
        job(repository, code={"exclude": ["/docs/*", "!/docs/b.py", "kept-by-git.bin", "data set/"]})
    )
    assert {"docs/b.py", "src/docs/c.md"} <= set(sent(selection))
    assert {path for path, why in reasons(selection).items() if why == "excluded in the job file"} == {
        "docs/a.md",
        "kept-by-git.bin",
        "data set/x",
    }


def test_outputs_data_environments_and_caches_are_left_out(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "train.py": "x",
            "models/best/model.bin": "x",
            "data/a.jsonl": "x",
            "data2/b.jsonl": "x",
            "anyname/pyvenv.cfg": "home = /usr",
            "anyname/lib/x.py": "x",
            "src/__pycache__/a.pyc": "x",
            "node_modules/a/index.js": "x",
            "pkg.egg-info/PKG-INFO": "x",
            "src/models/net.py": "x",
        },
    )
    selection = select_code(job(tmp_path, outputs=["models"], data=["data/", "./data2/b.jsonl"]))
    assert sent(selection) == ["src/models/net.py", "train.py"]
    assert reasons(selection) == {
        "models": "an output",
        "data": "sent as data",
        "data2/b.jsonl": "sent as data",
        "anyname": "a virtual environment",
        "src/__pycache__": "a cache",
        "node_modules": "installed packages",
        "pkg.egg-info": "installed packages",
    }


def test_links_are_kept_inside_and_never_followed_out(tmp_path: Path) -> None:
    home, root = tmp_path / "home", tmp_path / "root"
    write(home, {"private.txt": "x"})
    write(root, {"a/real.py": "x"})
    for name, target in {
        "inside": "a/real.py",
        "to-folder": "a",
        "dangling": "later.txt",
        "a/up": "../a/real.py",
        "home": "../home",
        "file": "../home/private.txt",
        "absolute": str(root / "a/real.py"),
        "chain": "home",
        "loop": "loop",
    }.items():
        (root / name).symlink_to(target)
    selection = select_code(job(root))
    links = {entry.path: entry.target for entry in selection.files if entry.kind == "link"}
    assert links == {
        "inside": "a/real.py",
        "to-folder": "a",
        "dangling": "later.txt",
        "a/up": "../a/real.py",
        "loop": "loop",
    }
    assert [entry.path for entry in selection.files if entry.kind == "file"] == ["a/real.py"]
    out = {path for path, why in reasons(selection).items() if why == "a link that leaves the folder"}
    assert out == {"home", "file", "absolute", "chain"}


def test_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert reasons(select_code(job(tmp_path))) == {"pipe": "neither a file nor a folder"}


def test_hostile_names_arrive_under_rsync_byte_for_byte(tmp_path: Path) -> None:
    source, target = tmp_path / "from", tmp_path / "to"
    source.mkdir()
    git(source, "init", "--quiet")
    written = hostile_tree(source)
    selection = select_code(job(source))
    assert set(sent(selection)) == set(written)
    command = ["rsync", "--archive", "--files-from=-", "--from0", f"{source}/", f"{target}/"]
    subprocess.run(command, input=selection.files_from(), check=True, capture_output=True, timeout=60)
    arrived = {os.path.relpath(os.path.join(at, name), target) for at, _, names in os.walk(target) for name in names}
    assert arrived == set(written)
    assert all((target / path).read_bytes() == content for path, content in written.items())


def test_hostile_names_that_git_ignores_or_the_job_excludes_stay(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    written = hostile_tree(tmp_path)
    (tmp_path / ".gitignore").write_text("*.d/\n")
    selection = select_code(job(tmp_path, code={"exclude": ["new*line"]}))
    assert set(sent(selection)) == {path for path in written if "/" not in path and path != "new\nline"} | {
        ".gitignore"
    }


def test_data_is_sent_whole_but_for_credentials_by_name_and_links_out(repository: Path) -> None:
    write(
        repository,
        {"scratch/.env": "x", "scratch/.git/config": "x", "scratch/corpus.jsonl": HUB_TOKEN, "scratch/.cache/b": "x"},
    )
    (repository / "scratch/out").symlink_to("/etc")
    selection = select_data(job(repository, data=["scratch"]), "scratch")
    assert sent(selection) == [".cache/b", "big.bin", "corpus.jsonl", "inner/a"]
    assert reasons(selection) == {
        ".env": "credentials by name",
        ".git": "version control",
        "out": "a link that leaves the folder",
    }
    again = select_data(job(repository, data=["scratch"], code={"include": ["scratch/.env"]}), "scratch")
    assert ".env" in sent(again)


def test_one_file_of_data_is_sent_from_its_folder(repository: Path) -> None:
    selection = select_data(job(repository, data=["scratch/big.bin"]), "scratch/big.bin")
    assert (selection.root, sent(selection)) == (repository / "scratch", ["big.bin"])


def test_the_preview_names_the_biggest_and_every_secret(tmp_path: Path) -> None:
    write(tmp_path, {f"small{number}.py": "x" for number in range(20)})
    write(tmp_path, {"assets/film.bin": "x" * 5000, "assets/b": "x" * 50, "ckpt.bin": "x" * 3000, ".env": "A=1"})
    shown = preview(select_code(job(tmp_path, code={"exclude": ["ckpt.bin"]})), most=2)
    assert [(item.path, item.bytes, item.files) for item in shown.folders] == [
        ("assets/", 5050, 2),
        ("small0.py", 1, 1),
    ]
    assert [item.path for item in shown.files] == ["assets/film.bin", "assets/b"]
    assert [left.path for left in shown.left_out] == [".env", "ckpt.bin"]
    assert (shown.count, shown.bytes, shown.left_out_count) == (22, 5070, 2)


@pytest.mark.parametrize("checksum", [False, True])
def test_files_and_folders_that_go_away_while_they_are_selected_are_not_called_unreadable(
    tmp_path: Path, checksum: bool
) -> None:
    write(tmp_path, {"train.py": "", **{f"keep/{number}.py": "x = 1\n" * 100 for number in range(50)}})
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            for number in range(20):
                write(tmp_path, {f"run-{number}/lock.txt": "held\n", f"run-{number}.tmp": "begun\n"})
                (tmp_path / f"run-{number}.tmp").chmod(0o600)
            for number in range(20):
                (tmp_path / f"run-{number}.tmp").unlink()
                shutil.rmtree(tmp_path / f"run-{number}")

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        for _ in range(100):
            plan = make_plan(job(tmp_path), checksum=checksum)
            assert plan.code is not None and len([path for path in sent(plan.code.selection) if "/" in path]) >= 50
            assert not [left for left in plan.code.selection.left_out if left.reason.startswith("cannot be read")]
            assert not plan.warnings[1:], plan.warnings
    finally:
        over.set()
        other.join()
