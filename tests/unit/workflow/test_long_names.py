"""runner/workflow/fetching/long_names.py: names that the disk here cannot hold are refused before anything is written."""

import os
import random
from pathlib import Path

import pytest

from runner.domain.errors import ArtifactError
from runner.workflow.fetching.long_names import ROOM, refuse_long_names


def test_what_is_let_through_can_be_written_and_what_is_over_a_limit_is_refused(tmp_path: Path) -> None:
    """Beside what the disk itself says of names around its limits, in a folder that is not there yet."""
    chance = random.Random(5)
    for number in range(200):
        name = chance.choice(["x", "é", "漢"]) * chance.choice([1, 60, 84, 85, 86, 127, 128, 255, 256])
        path = "/".join([name] * chance.choice([1, 2, 7, 8, 15, 16]))
        folder = tmp_path / str(number) / "b"
        fits = len(os.fsencode(name)) <= os.pathconf(tmp_path, "PC_NAME_MAX")
        fits &= len(os.fsencode(folder / path)) + ROOM <= os.pathconf(tmp_path, "PC_PATH_MAX")
        if not fits:
            with pytest.raises(ArtifactError, match="too long"):
                refuse_long_names(folder, ["short", path])
            continue
        refuse_long_names(folder, ["short", path])
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"")


def test_a_folder_that_is_itself_too_long_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        refuse_long_names(tmp_path / ("d" * 300), ["model.bin"])
    assert "300 bytes are too long for a name" in caught.value.message
