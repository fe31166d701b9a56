"""What TensorBoard reads grows in place, whatever comes home in whatever order; and what is said where there is nothing to show."""

from __future__ import annotations

import importlib.util
import os
import random
from pathlib import Path

import pytest

from runner import store
from runner.domain.answers.status import Status
from runner.domain.errors import ArtifactError, UserError
from runner.domain.job import Job
from runner.domain.progress import Silent
from runner.domain.run import Run
from runner.workflow.tensorboard import serve
from runner.workflow.tensorboard.mirror import Mirror, logs_here
from runner.workflow.tensorboard.refresh import may_have_more

NAME = "events.out.tfevents.1.box.2.0"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "home"))


def made(number: int, **fields: object) -> Run:
    run = Run(f"a-20260102-1420{number:02}-{number:04x}", Job("a"), "box", 1.0, launched=True, **fields)  # type: ignore[arg-type]
    store.save(run)
    return run


def comes_home(file: Path, content: bytes) -> None:
    """As a fetch puts a version of a file there: whole, in the place of the one before."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name("coming")
    beside.write_bytes(content)
    os.replace(beside, file)


@pytest.mark.parametrize("seed", range(20))
def test_a_file_that_is_held_open_sees_all_that_comes_home(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    runs = [made(number) for number in range(2)]
    folders = {f"logs/{runs[0].run_id}": "", "logs/other": "other/", "results/a b": "results/a b/", "": ""}
    mirror = Mirror(tmp_path / "shown" / "logs")
    written: dict[tuple[int, str], bytes] = {}
    held: dict[tuple[int, str], object] = {}
    for _ in range(30):
        which, folder = draw.randrange(2), draw.choice(sorted(folders))
        if which == 1 and folder.startswith("logs/a-"):
            folder = f"logs/{runs[1].run_id}"
        # What was fetched may be behind what came home while the run trained, and the other way round.
        top = draw.choice([runs[which].outputs_here, logs_here(runs[which])])
        key = which, folder
        written[key] = written.get(key, b"") + draw.randbytes(draw.choice([0, 1, 100, 70_000]))
        comes_home(top / folder / (NAME + str(len(folder))), written[key])
        if draw.random() < 0.5:
            continue
        mirror.update(runs)
        for (number, path), content in written.items():
            run_id = runs[number].run_id
            shown = tmp_path / "shown" / "logs" / run_id / folders.get(path, "") / (NAME + str(len(path)))
            handle = held.setdefault((number, path), shown.open("rb"))
            assert os.fstat(handle.fileno()).st_size == len(content)  # type: ignore[attr-defined]
            assert shown.read_bytes() == content
    assert os.listdir(tmp_path / "shown") == ["logs"]
    for handle in held.values():
        handle.close()  # type: ignore[attr-defined]


def test_a_file_that_was_written_anew_replaces_the_copy(tmp_path: Path) -> None:
    run, mirror = made(1), Mirror(tmp_path / "shown")
    for content in (b"first", b"other and longer", b"short", b""):
        comes_home(run.outputs_here / "tb" / NAME, content)
        mirror.update([run])
        assert (tmp_path / "shown" / run.run_id / "tb" / NAME).read_bytes() == content


def test_only_event_files_of_the_runs_are_shown(tmp_path: Path) -> None:
    run, mirror = made(1), Mirror(tmp_path / "shown")
    outputs = run.outputs_here
    for path in ("models/weights", ".gpurun-staging/outputs/" + NAME, "notes/tfevents/readme.txt"):
        comes_home(outputs / path, b"x")
    (tmp_path / "secret").write_bytes(b"x")
    (outputs / NAME).symlink_to(tmp_path / "secret")
    (outputs / "out").symlink_to(tmp_path)
    mirror.update([run])
    assert mirror.is_empty and not (tmp_path / "shown").exists()
    with pytest.raises(ArtifactError, match="no TensorBoard logs are known"):
        serve.show([made(2, done=True)], Silent(), lambda address: None)


def test_only_boxes_that_may_have_more_are_asked() -> None:
    over = Status("a-20260102-142001-0001", "finished", "succeeded")
    assert may_have_more(made(1)) and may_have_more(made(1, status=over))
    assert not may_have_more(made(1, status=over, fetched_at=1.0)) and not may_have_more(made(1, done=True))


def test_where_tensorboard_is_missing_the_line_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as said:
        serve.show([made(1)], Silent(), lambda address: None)
    assert said.value.hint == "pip install 'gpurun[tensorboard]'"
