"""A folder on the box with an odd name holds whole runs, or is refused before anything is contacted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Gpurun

TRAIN = "import pathlib\npathlib.Path('models').mkdir(exist_ok=True)\npathlib.Path('models/w').write_text('w')\nprint('trained')\n"


def test_a_run_below_a_name_with_an_at_sign_and_a_plus_comes_home(gpurun: Gpurun, job: Any, tmp_path: Path) -> None:
    volume = tmp_path / "ada+test@example.org"
    volume.mkdir()
    file = job(TRAIN)
    (file.parent / "corpus").mkdir()
    (file.parent / "corpus" / "a.txt").write_text("a")
    text = file.read_text().replace('"outputs"', '"data": ["corpus"], "outputs"')
    file.write_text(text)
    run_id = gpurun.submit(file, "--volume", f"{volume}/")
    assert "trained" in gpurun("logs", "-f").stdout
    gpurun("fetch", "--into", str(tmp_path / "home"))
    assert (tmp_path / "home" / "models" / "w").read_text() == "w"
    assert (volume / ".gpurun-box" / "runs" / run_id).is_dir()


@pytest.mark.parametrize("volume", ["/my data", "workspace", "/a;b", "/ünder"])
def test_a_volume_that_a_shell_could_misread_is_refused_here(gpurun: Gpurun, job: Any, volume: str) -> None:
    refused = gpurun("submit", str(job(TRAIN)), "--host", "local", "--volume", volume, check=2)
    assert "--volume" in refused.stderr and "bug" not in refused.stderr
