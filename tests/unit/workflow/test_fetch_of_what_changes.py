"""A file that changes faster than it can be copied holds up nothing else."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from runner.domain.answers.manifest import Artifact, Manifest
from runner.domain.errors import ChecksumMismatch
from runner.domain.progress import Silent
from runner.workflow import fetch

PLACES = ("out/ckpt.pt", "out/checkpoint-5", "out/checkpoint-10", "out", "logs")


class Run(SimpleNamespace):
    run_id = "own-20260102-142030-7f3a"


def artifacts(chance: random.Random) -> list[Artifact]:
    paths = {"out/ckpt.pt"} | {f"{place}/{chance.choice('abc')}" for place in PLACES[1:] for _ in range(3)}
    return [Artifact(path, 1, "0" * 64) for path in sorted(paths)]


def link_of(files: list[Artifact], complete: bool = False) -> SimpleNamespace:
    checkpoints = {place: SimpleNamespace(path=place) for place in PLACES[:3]}
    agent = SimpleNamespace(
        manifest=lambda run_id, tell: Manifest(complete, tuple(files)), checkpoints=lambda run_id: checkpoints
    )
    return SimpleNamespace(agent=agent)


@pytest.fixture
def brought(monkeypatch):
    """Copies nothing: notes what would arrive, and fails as rsync and the hashes do where ``changing`` files are among it."""
    noted = SimpleNamespace(changing=set(), here=set())

    def bring(link, run, batches, target, report, arrived):
        files = [file for batch in batches for file in batch]
        if noted.changing & {file.path for file in files}:
            raise ChecksumMismatch("it is not what the box's manifest says")
        new = [file for file in files if file.path not in noted.here]
        noted.here |= {file.path for file in files}
        return new

    monkeypatch.setattr(fetch, "bring", bring)
    return noted


@pytest.mark.parametrize("seed", range(20))
def test_all_comes_home_but_the_checkpoints_that_change_and_a_checkpoint_comes_whole(brought, tmp_path, seed):
    chance = random.Random(seed)
    files = artifacts(chance)
    in_checkpoints = [file.path for file in files if file.path.startswith(PLACES[:3])]
    brought.changing = set(chance.sample(in_checkpoints, chance.randint(1, 3)))
    manifest, new = fetch._fetch_all(link_of(files), Run(), tmp_path, Silent())
    tops = {next(top for top in PLACES if path == top or path.startswith(top + "/")) for path in brought.changing}
    expected = {
        file.path for file in files if not any(file.path == top or file.path.startswith(top + "/") for top in tops)
    }
    assert brought.here == expected == {file.path for file in new} == {file.path for file in manifest.files}


def test_where_nothing_can_be_copied_it_is_an_error_and_of_a_run_that_is_over_at_once(brought, tmp_path):
    files = [Artifact("out/ckpt.pt", 1, "0" * 64)]
    brought.changing = {"out/ckpt.pt"}
    for complete in (False, True):
        with pytest.raises(ChecksumMismatch):
            fetch._fetch_all(link_of(files, complete), Run(), tmp_path, Silent())
