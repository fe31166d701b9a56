"""How long a run is waited for between TERM and KILL."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from remote_payload.agent.run import ending
from remote_payload.agent.wire.paths import RunPaths


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (None, 45),
        ('{"seconds": 455.5}', 455.5),
        ('{"seconds": 3}', 45),
        ('{"seconds": 1e9}', 3600),
        ('{"seconds": NaN}', 45),
        ('{"seconds": "900"}', 45),
        ('{"seconds": true}', 45),
        ("[900]", 45),
        ('{"seconds": 9', 45),
    ],
)
def test_a_run_has_45_seconds_or_as_many_as_it_says(tmp_path: Path, told: str | None, seconds: float) -> None:
    run = RunPaths(str(tmp_path / "legal-20260102-142030-7f3a"))
    Path(run.folder).mkdir()
    if told is not None:
        Path(run.grace).write_text(told)
    assert ending.needed_grace(run) == seconds


def test_the_grace_that_stop_was_asked_for_outweighs_what_the_run_says(tmp_path: Path) -> None:
    run = RunPaths(str(tmp_path / "legal-20260102-142030-7f3b"))
    Path(run.folder).mkdir()
    Path(run.grace).write_text(json.dumps({"seconds": 900}))
    assert ending.requested_grace(run) == 900
    ending.request_grace(run, 2.0)
    try:
        assert ending.requested_grace(run) == 2.0
    finally:
        ending.forget_grace(run)
