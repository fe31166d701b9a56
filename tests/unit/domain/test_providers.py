"""What a provider's list of boxes says, and which commands belong to a tool that can be asked for one."""

from __future__ import annotations

import json

import pytest

from runner.domain.providers import Instance, Listed, find_in_list, instance_of_command

VAST = Instance("77", ("/opt/vastai", "show", "instances", "--raw"), b"y\n")
POD = Instance("abc9", ("runpodctl", "pod", "list", "--all", "--output", "json"))


@pytest.mark.parametrize(
    ("command", "instance"),
    [
        ("/opt/vastai destroy instance 77", VAST),
        ("/opt/vastai destroy instance 77 -y", VAST),
        ("runpodctl pod delete abc9", POD),
        ("runpodctl remove pod abc9", POD),
        ("vastai stop instance 77", None),
        ("vastai destroy instance --all", None),
        ("runpodctl pod stop abc9", None),
        ("runpodctl pod delete --x", None),
        ("terminate.sh 77", None),
    ],
)
def test_a_command_of_a_known_tool_names_its_box(command: str, instance: Instance | None) -> None:
    assert instance_of_command(tuple(command.split())) == instance


@pytest.mark.parametrize(
    ("printed", "listed"),
    [
        ([{"id": 77, "actual_status": "running"}], Listed(True, "running")),
        ({"instances": [{"id": 77, "actual_status": "exited"}]}, Listed(True, "exited")),
        ([{"id": 770}, {"id": "7"}], Listed(False)),
        ([], Listed(False)),
        ({"success": False, "msg": "no such user"}, None),
        ({"instances": None}, None),
        ([77], None),
        ("Aborted.", None),
    ],
)
def test_only_a_list_says_that_a_box_is_gone(printed: object, listed: Listed | None) -> None:
    assert find_in_list(VAST, json.dumps(printed)) == listed
    assert find_in_list(VAST, f"WARNING {json.dumps(printed)}") is None


@pytest.mark.parametrize(
    ("row", "stopped"),
    [
        ({"runtimeStatus": "running", "desiredStatus": "RUNNING"}, False),
        ({"runtimeStatus": "stopped", "desiredStatus": "EXITED"}, True),
        ({"desiredStatus": "EXITED"}, True),  # older ones say no more
        ({"actual_status": None}, False),
    ],
)
def test_a_stopped_box_is_told_from_a_running_one(row: dict[str, object], stopped: bool) -> None:
    found = find_in_list(POD, json.dumps([{"id": "abc9", **row}]))
    assert found and found.there and found.stopped == stopped
