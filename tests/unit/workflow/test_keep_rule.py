"""runner/workflow/keeping: which checkpoints come home and stay, and that the newest verified one always does."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from runner import store
from runner.domain.answers.manifest import Artifact, Manifest
from runner.domain.answers.verbs import Kept
from runner.domain.errors import UserError
from runner.domain.job import Job
from runner.domain.run import Run, mint_id
from runner.workflow.fetching.receipt import Receipt
from runner.workflow.keeping.bring import make_plan
from runner.workflow.keeping.home import Home
from runner.workflow.keeping.rule import Rule, newest_first, parse_rule


def checkpoint(step: int, loss: float | None = None, at: float = 0.0) -> Kept:
    metrics = {} if loss is None else {"loss": loss}
    return Kept(f"step-{step:06d}", f"checkpoints/step-{step:06d}", step, metrics, 2, True, at or float(step))


def files_of(kept: Kept) -> list[Artifact]:
    return [Artifact(f"{kept.path}/{name}", 1, sha256(name)) for name in ("a", "manifest.json")]


def sha256(text: str) -> str:
    return hashlib.sha256(text[:1].encode()).hexdigest()


@pytest.mark.parametrize("written", ["all", "latest:1", "latest:12", "latest:1,best", "best, latest:3"])
def test_a_rule_is_read_and_written(written: str) -> None:
    assert parse_rule(str(parse_rule(written))) == parse_rule(written)


@pytest.mark.parametrize(
    "written", ["", "best", "latest", "latest:0", "latest:-1", "latest:1,all", "latest:1,latest:2", "newest:1"]
)
def test_a_rule_that_does_not_name_the_latest_is_refused(written: str) -> None:
    with pytest.raises(UserError, match="is no rule"):
        parse_rule(written)


def test_the_best_is_the_one_with_the_smallest_loss() -> None:
    found = [checkpoint(1, 3.0), checkpoint(2, 1.0), checkpoint(3, 2.0), checkpoint(4)]
    assert Rule(1, best=True).wanted(found) == {found[1].path, found[3].path}
    assert Rule(2).wanted(found) == {found[2].path, found[3].path}
    assert len(Rule().wanted(found)) == 4


def test_without_a_step_the_time_decides() -> None:
    older, newer = Kept("b", "b", None, {}, 1, True, 5.0), Kept("a", "a", 9, {}, 1, True, 7.0)
    assert newest_first([older, newer]) == [newer, older]


def test_the_newest_comes_first_but_what_has_begun_is_finished() -> None:
    box = [checkpoint(step) for step in (1, 2, 3)]
    logs = Artifact("logs/train.jsonl", 5, sha256("l"))
    manifest = Manifest(False, (*(file for kept in box for file in files_of(kept)), logs))
    plan = make_plan(manifest, box, {}, set(), Rule(1))
    assert list(plan.checkpoints) == [box[2].path] and plan.batches[-1] == (logs,)
    assert {file.path for file in plan.left} == {file.path for kept in box[:2] for file in files_of(kept)}
    plan = make_plan(manifest, box, {}, {f"{box[1].path}/a"}, Rule(1))
    assert list(plan.checkpoints) == [box[1].path, box[2].path]


def test_a_checkpoint_of_which_the_manifest_lacks_a_file_is_none() -> None:
    box = checkpoint(1)
    manifest = Manifest(False, tuple(files_of(box)[:1]))
    assert not make_plan(manifest, [box], {}, set(), Rule()).checkpoints


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_the_newest_verified_checkpoint_stays(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random histories: checkpoints arrive whole or in part, the user changes and deletes files, the rule thins, the note is lost."""
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "state"))
    chance = random.Random(f"keep-{seed}")
    run = Run(mint_id("x"), Job("x"), "local", 0.0)
    store.create(run)
    target = tmp_path / "outputs"
    target.mkdir()
    rule = Rule(chance.choice([1, 2, 3]), best=chance.random() < 0.5)
    for step in range(1, 15):
        kept = checkpoint(step, chance.choice([None, chance.random()]))
        if chance.random() < 0.8:
            arrive(target, kept, files_of(kept))
            Home(run, target).add(kept, files_of(kept))
        if chance.random() < 0.2 and (own := sorted(target.rglob("a"))):
            chance.choice(own).write_text("the user's own")
        before = Home(run, target).verified()
        mine = {path: path.read_text() for path in target.rglob("a") if path.read_text() != "a"}
        if before:
            Home(run, target).keep_only(rule.wanted(before.values()))
            after = Home(run, target).verified()
            assert newest_first(before.values())[0] in after.values() and set(after) == rule.wanted(before.values())
            assert {path: path.read_text() for path in mine} == mine
        assert all(path.with_name("manifest.json").exists() for path in mine), "it was changed here, and stays as it is"
        for path in target.rglob("manifest.json"):
            assert (path.parent / "a").exists(), "a folder that says it is complete lacks a file"


def arrive(target: Path, kept: Kept, files: list[Artifact]) -> None:
    """As a fetch leaves it: the files, and the receipt that has them."""
    receipt = Receipt(target)
    for file in files:
        (target / file.path).parent.mkdir(parents=True, exist_ok=True)
        (target / file.path).write_text(Path(file.path).name[:1])
        receipt.note(file)
    receipt.save()


def test_what_the_rule_left_is_not_asked_for_and_can_still_be_fetched(tmp_path: Path) -> None:
    (file,) = files_of(checkpoint(1))[:1]
    receipt = Receipt(tmp_path)
    receipt.leave(file)
    receipt.save()
    again = Receipt(tmp_path)
    assert again.is_left(file) and not again.has(file) and again.may_replace(file)
    assert not again.is_left(Artifact(file.path, file.size, sha256("x"))), "it has changed on the box since"
    (tmp_path / file.path).parent.mkdir(parents=True)
    (tmp_path / file.path).write_text("the user's own")
    assert not again.may_replace(file)


def test_what_was_moved_here_before_a_fetch_was_killed_is_verified_and_the_rest_is_not(tmp_path: Path) -> None:
    moved, staged = files_of(checkpoint(1))
    for file in (moved, staged):
        (tmp_path / "staged" / file.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "staged" / file.path).write_text("x")
    receipt = Receipt(tmp_path)
    for file in (moved, staged):
        receipt.expect(file, tmp_path / "staged" / file.path)
    receipt.save()
    (tmp_path / moved.path).parent.mkdir(parents=True)
    (tmp_path / "staged" / moved.path).rename(tmp_path / moved.path)
    again = Receipt(tmp_path)
    assert again.verified() == {moved.path: moved.sha256} and again.has(moved)
    assert again.unsure() == {staged.path} and not again.has(staged)
