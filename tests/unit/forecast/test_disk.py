"""The disk forecast: how many checkpoints runs make, how large they are, and what a retention rule keeps."""

from __future__ import annotations

import pytest

from remote_payload.forecast.disk import checkpoint_bytes, checkpoints_of_a_run, forecast_disk
from tests.unit.forecast.test_memory import GEMMA_300M, OLMO_7B, S0, S2


def test_twenty_runs_of_seven_or_27_checkpoints_are_five_terabytes() -> None:
    each = checkpoint_bytes(OLMO_7B, S2, resumable=False)
    assert each == pytest.approx(14.6e9, rel=0.01)
    made = [checkpoints_of_a_run(1, 0.2)] * 10 + [checkpoints_of_a_run(5, 0.2)] * 10
    assert made[0] == 7 and made[-1] == 27
    disk = forecast_disk(OLMO_7B, S2, made)
    assert disk.checkpoints * disk.each == pytest.approx(5e12, rel=0.02)
    assert checkpoint_bytes(OLMO_7B, S2) == 3 * each
    assert disk.total == 340 * 3 * each + 20 * each, (
        "every checkpoint can be resumed, and each run has a finished model"
    )


def test_a_retention_rule_leaves_optimizer_state_in_the_latest_alone() -> None:
    disk = forecast_disk(OLMO_7B, S2, [5, 1], resumable=2)
    assert (disk.runs, disk.checkpoints, disk.resumable) == (2, 6, 3)
    assert disk.total == (3 * 3 + 3 + 2) * disk.each


def test_a_checkpoint_of_an_adapter_holds_the_adapter_alone() -> None:
    assert checkpoint_bytes(GEMMA_300M, S0) < 0.05 * checkpoint_bytes(OLMO_7B, S2)
