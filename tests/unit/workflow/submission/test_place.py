"""Where gpurun works on a host: what is told of it, and that a folder once noted stays until another one is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner import files
from runner.domain import places
from runner.domain.answers.box import Box, Place
from runner.domain.answers.reading import Impossible
from runner.domain.host import HOME, Host
from runner.host_notes import host_notes, note_reached, note_volume
from runner.workflow.connect import resolve_or_start_host
from runner.workflow.hosts import set_volume
from runner.workflow.submission.place import find_place
from tests.unit.workflow.submission.test_checks import GOOD

AT_RUNPOD = {
    "kind": "runpod", "box_id": "k3x9", "folder": "/workspace", "volume": None, "network": False, "own_mount": True, "lost_by": "destroy",
}  # fmt: skip
ON_DISK = {**AT_RUNPOD, "folder": "/root", "own_mount": False, "lost_by": "stop"}


def find(place: dict[str, Any] | None, total: int = 100 * 10**9) -> tuple[str, str, str]:
    disk = {"free": total // 2, "total": total, "inodes_free": None, "writable": True, "error": None}
    (finding,) = find_place(Box.parse({**GOOD, "place": place, "disk": disk}))
    return finding.verdict, finding.said, finding.hint


@pytest.mark.parametrize(
    ("place", "verdict", "words"),
    [
        (AT_RUNPOD, "ok", ["/workspace, a volume of this RunPod pod", "50.0 GB of 100.0 GB", "stopped, lost when it is destroyed"]),
        ({**AT_RUNPOD, "network": True, "lost_by": "volume"}, "ok", ["network volume", "lost when the volume is deleted"]),
        ({**ON_DISK, "volume": "/workspace"}, "warn", ["on the disk of this RunPod pod", "a stop deletes all", "--volume /workspace"]),
        (ON_DISK, "warn", ["a stop deletes all of it", "before you stop the box"]),
        ({**ON_DISK, "kind": "vast", "lost_by": "destroy"}, "ok", ["vast.ai instance is stopped, lost when it is destroyed"]),
        ({**ON_DISK, "kind": "lambda", "lost_by": "destroy"}, "ok", ["Lambda instance is restarted, lost when it is destroyed"]),
        ({**ON_DISK, "kind": "machine", "lost_by": "destroy"}, "ok", ["kept when the machine is restarted"]),
        ({**ON_DISK, "kind": "container", "lost_by": "unknown"}, "ok", ["on the disk of this container", "is not known"]),
    ],
)  # fmt: skip
def test_the_place_its_size_and_what_deletes_it_are_told(place: dict[str, Any], verdict: str, words: list[str]) -> None:
    found = find(place)
    assert found[0] == verdict and all(word in found[1] + found[2] for word in words), found


def test_a_network_volume_reports_the_whole_cluster_and_no_size_is_told() -> None:
    assert "404" not in find({**AT_RUNPOD, "network": True, "lost_by": "volume"}, 404 * 10**12)[1]


def test_a_place_that_cannot_be_is_refused_and_an_unknown_one_is_not_told() -> None:
    assert find_place(Box.parse(GOOD)) == []
    for wrong in ({"kind": "mars"}, {"lost_by": "fire"}, {"box_id": "a b"}, {"volume": "workspace"}, {"folder": None}):
        with pytest.raises(Impossible, match="place"):
            Box.parse({**GOOD, "place": {**AT_RUNPOD, **wrong}})
    assert Box.parse({**GOOD, "place": AT_RUNPOD}).place == Place(**AT_RUNPOD)  # type: ignore[arg-type]


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path))
    return Host("root@1.2.3.4", "1.2.3.4", 22, "root")


def test_a_volume_once_noted_stays_until_another_one_is_named(noted: Host) -> None:
    note_reached(noted, "", None)  # no agent started there yet
    assert resolve_or_start_host(noted.typed).volume is None
    note_reached(noted, "", "/workspace")
    note_reached(noted, "", HOME)  # a run that lies elsewhere was asked for
    assert resolve_or_start_host(noted.typed).volume == "/workspace"
    assert resolve_or_start_host(noted.typed, HOME).volume == HOME
    set_volume(noted.typed, "/data/")
    note_reached(noted, "0" * 32, "/workspace")
    assert resolve_or_start_host(noted.typed).volume == "/data"
    note_volume(noted, HOME)
    note = host_notes()[noted.typed]
    assert (note.volume, note.box, note.address) == (HOME, "0" * 32, "root@1.2.3.4") and note.seen_at


def test_of_a_host_that_an_older_gpurun_noted_the_box_says_where_its_root_is(noted: Host) -> None:
    old = {"address": "root@1.2.3.4", "known_as": "1.2.3.4", "volume": None, "seen_at": 1793700021.0}
    files.write_json(places.hosts_file(), {noted.typed: old, "b": {**old, "volume": "/mnt"}})
    assert resolve_or_start_host(noted.typed).volume is None and resolve_or_start_host("b").volume == "/mnt"
