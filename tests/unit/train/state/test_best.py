"""Whether a folder holds the weights of an evaluation, by what it says of itself."""

from __future__ import annotations

import math
from pathlib import Path

from remote_payload.train.files import write_json
from remote_payload.train.folders import complete_folder
from remote_payload.train.state.best import holds


def test_a_model_beside_whose_deciding_metric_another_is_no_number_is_found_again(tmp_path: Path) -> None:
    """A loss that overflowed beside an accuracy that is the best: NaN equals nothing, itself included."""
    entry = {"step": 4, "metrics": {"accuracy": 0.5, "loss": math.nan}}
    with complete_folder(tmp_path / "best") as folder:
        write_json(folder / "metrics.json", {"step": 4, "epoch": 1.0, **entry["metrics"]})
    assert holds(tmp_path / "best", entry)
    assert not holds(tmp_path / "best", {"step": 4, "metrics": {"accuracy": 0.5, "loss": 1.0}})
    assert not holds(tmp_path / "best", {"step": 4, "metrics": {"accuracy": 0.75, "loss": math.nan}})
