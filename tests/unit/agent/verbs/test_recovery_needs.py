"""What an interrupted run of a recipe needs: its training package, and a checkpoint where it had saved one."""

from __future__ import annotations

import io
import json
import random
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from remote_payload.agent.verbs.box.install_payload import install_payload, is_intact
from remote_payload.agent.verbs.recovery.needs import last_checkpoint
from remote_payload.agent.wire.paths import BoxPaths
from remote_payload.agent.wire.request import Request

NAME = "job-20260102-142030-7f3a"


def send(paths: BoxPaths, packed: bytes) -> Path:
    name = sha256(packed).hexdigest()
    request = Request({"sha256": name}, paths)
    request.offer_blob(packed)
    request.offer_blob(b"")
    install_payload(request)
    return Path(paths.payload(name))


@pytest.mark.parametrize("seed", range(6))
def test_a_training_package_that_lost_files_is_known_and_sent_again(tmp_path: Path, seed: int) -> None:
    draw = random.Random(f"payload-{seed}")
    paths = BoxPaths(str(tmp_path / "root"))
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name in ("remote_payload/__init__.py", "remote_payload/train/loop.py", "remote_payload/recipes/sft.py"):
            archive.writestr(name, "x = 1\n" * draw.randint(1, 9))
    folder = send(paths, raw.getvalue())
    assert is_intact(str(folder))
    before = {path: path.read_bytes() for path in folder.rglob("*.py")}
    (folder / "remote_payload" / "__pycache__").mkdir()
    (folder / "remote_payload" / "__pycache__" / "x.pyc").write_text("x")
    assert is_intact(str(folder))
    lost = draw.choice(sorted(before))
    lost.unlink() if draw.random() < 0.5 else lost.write_text("")
    assert not is_intact(str(folder))
    assert send(paths, raw.getvalue()) == folder and is_intact(str(folder))
    assert {path: path.read_bytes() for path in folder.rglob("*.py")} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def save(outputs: Path, step: int) -> Path:
    folder = outputs / "checkpoints" / f"step-{step:06d}"
    folder.mkdir(parents=True)
    files = []
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        (folder / name).write_text(name * step)
        files.append({"path": name, "size": len(name * step), "sha256": "0" * 64})
    (folder / "manifest.json").write_text(json.dumps({"step": step, "files": files}))
    return folder


@pytest.mark.parametrize("seed", range(10))
def test_the_last_checkpoint_is_the_newest_that_has_all_its_files(tmp_path: Path, seed: int) -> None:
    draw = random.Random(f"checkpoints-{seed}")
    run = BoxPaths(str(tmp_path)).run(NAME)
    whole = []
    for step in sorted(draw.sample(range(1, 3000), draw.randint(1, 5))):
        folder = save(Path(run.outputs), step)
        damage = draw.choice((None, None, "gone", "short", "manifest"))
        if damage == "gone":
            draw.choice(
                [folder / "model.safetensors", folder / "state.json", folder / "optimizer.safetensors"]
            ).unlink()
        elif damage == "short":
            (folder / "model.safetensors").write_text("")
        elif damage == "manifest":
            (folder / "manifest.json").write_text("{")
        else:
            whole.append(folder.name)
    (Path(run.outputs) / "checkpoints" / ".tmp-step-009999").mkdir()
    assert last_checkpoint(run) == (whole[-1] if whole else None)
