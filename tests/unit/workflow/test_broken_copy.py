"""A copy that breaks anywhere leaves nothing behind that is home and cannot be gone on with."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner import store
from runner.domain.answers.manifest import Artifact, Manifest
from runner.domain.answers.verbs import Kept
from runner.domain.errors import TransferInterrupted
from runner.domain.job import Job
from runner.domain.progress import Silent
from runner.domain.run import Run, mint_id
from runner.transport.transfer import rsync
from runner.workflow import fetch
from runner.workflow.checkpoints import fetched
from runner.workflow.keeping.bring import bring_home
from runner.workflow.keeping.rule import Rule
from runner.workflow.moving.home import outputs_at_home


def box_with(outputs: Path, steps: range) -> SimpleNamespace:
    """An agent over this folder: checkpoints of a recipe, a log and a report."""
    listed = {}
    for step in steps:
        folder = outputs / "checkpoints" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        (folder / "optimizer.safetensors").write_bytes(random.Random(step).randbytes(2000))
        names = {"step": step, "files": [{"path": "optimizer.safetensors", "size": 2000}]}
        (folder / "manifest.json").write_text(json.dumps(names))
        size = sum(path.stat().st_size for path in folder.iterdir())
        listed[folder.name] = Kept(folder.name, f"checkpoints/{folder.name}", step, {}, size, True, float(step))
    for path in ("logs/tb", "reports/card.md"):
        (outputs / path).parent.mkdir(parents=True)
        (outputs / path).write_text(path)
    files = [path for path in sorted(outputs.rglob("*")) if path.is_file()]
    manifest = Manifest(False, tuple(_artifact(path, outputs) for path in files))
    agent = SimpleNamespace(manifest=lambda run_id: manifest, checkpoints=lambda run_id: listed)
    paths = SimpleNamespace(run=lambda run_id: SimpleNamespace(outputs=outputs))
    return SimpleNamespace(agent=agent, paths=paths, host=None, slow=False)


def _artifact(path: Path, outputs: Path) -> Artifact:
    content = path.read_bytes()
    return Artifact(str(path.relative_to(outputs)), len(content), hashlib.sha256(content).hexdigest())


def keep(link: Any, run: Run, into: Path) -> None:
    bring_home(link, run, link.agent.checkpoints(""), Rule(), Silent(), lambda kept: None)


def fetch_into(link: Any, run: Run, into: Path) -> None:
    """As ``fetch --into`` does it where files change while they are copied: one checkpoint after the other."""
    fetch._bring_what_rests(link, run, link.agent.manifest(""), into, Silent())


@pytest.mark.parametrize("bring", [keep, fetch_into])
@pytest.mark.parametrize("seed", range(10))
def test_what_is_home_when_the_box_dies_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, bring: Callable[[Any, Run, Path], None]
) -> None:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "home"))
    run = Run(mint_id("x"), Job("x", recipe="pretrain"), "local", 0.0)
    store.create(run)
    chance = random.Random(seed)
    link: Any = box_with(tmp_path / "box", range(10, 10 + 10 * chance.randint(1, 4), 10))
    copies_left = chance.randint(0, 5)

    def pull(host: object, source: Path, paths: list[str], target: Path, **options: Any) -> None:
        nonlocal copies_left
        copies_left -= 1
        if copies_left < 0:
            raise TransferInterrupted("the box is gone")
        for path in paths:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / path, target / path)

    monkeypatch.setattr(rsync, "pull", pull)
    monkeypatch.setattr(fetch, "PAUSES", ())
    places = {keep: run.outputs_here, fetch_into: tmp_path / "elsewhere"}
    places[bring].mkdir(parents=True)
    try:
        bring(link, run, places[bring])
    except TransferInterrupted:
        assert copies_left < 0
    here = sorted(file.parent.name for file in places[bring].glob("checkpoints/*/manifest.json"))
    record = store.load(run.run_id)
    outputs = outputs_at_home(record, "auto")
    assert sorted(fetched(record)) == here
    assert (outputs.checkpoint.name if outputs and outputs.checkpoint else None) == max(here, default=None)
    assert record.fetched_into == (str(places[bring]) if here else None), "the record says where it is"
