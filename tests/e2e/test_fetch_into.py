"""A fetch into a folder that holds something already: the user's own stays, what is equal is not sent again."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Gpurun

TRAIN = """
import pathlib
pathlib.Path("models").mkdir(exist_ok=True)
pathlib.Path("models/weights.json").write_text("[1, 2, 3]")
pathlib.Path("models/card.md").write_text("# a model")
"""


@pytest.fixture
def finished(gpurun: Gpurun, job: Any) -> str:
    run_id = gpurun.submit(job(TRAIN))
    gpurun("logs", "-f", run_id)
    return run_id


def test_a_file_of_the_users_own_is_not_overwritten(gpurun: Gpurun, finished: str, tmp_path: Path) -> None:
    mine = tmp_path / "project" / "models" / "card.md"
    mine.parent.mkdir(parents=True)
    mine.write_text("# my own notes")
    refused = gpurun("fetch", finished, "--into", str(tmp_path / "project"), check=6)
    assert "models/card.md" in refused.stderr and "no fetch put them there" in refused.stderr
    assert mine.read_text() == "# my own notes" and not (mine.parent / "weights.json").exists()
    mine.rename(tmp_path / "moved away")
    assert len(gpurun.json("fetch", finished, "--into", str(tmp_path / "project"))["new"]) == 2


def test_what_was_copied_by_hand_is_taken_for_what_it_is(gpurun: Gpurun, finished: str, tmp_path: Path) -> None:
    (tmp_path / "home" / "models").mkdir(parents=True)
    (tmp_path / "home" / "models" / "weights.json").write_text("[1, 2, 3]")
    first = gpurun.json("fetch", finished, "--into", str(tmp_path / "home"))
    assert len(first["new"]) == 1 and first["kept"] == 1
    (tmp_path / "home" / "models" / "weights.json").write_text("[1, 2, 4]")
    again = gpurun.json("fetch", finished)
    assert len(again["new"]) == 1, "what a fetch brought and somebody changed is brought again"
    assert (tmp_path / "home" / "models" / "weights.json").read_text() == "[1, 2, 3]"
