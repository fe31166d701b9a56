"""What a provider's list of boxes says, and which commands belong to a tool that can be asked for one."""

from __future__ import annotations

import json

import pytest

from runner.domain.host import Host
from runner.domain.providers import Instance, Listed, command_for_box, find_in_list, has_address, instance_of_command

SHOW = ("/opt/vastai", "show", "instances", "--raw")
VAST = Instance("77", SHOW, SHOW, b"y\n")
JSON = ("--output", "json")
POD = Instance("abc9", ("runpodctl", "pod", "list", "--all", *JSON), ("runpodctl", "pod", "get", "abc9", *JSON))


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


@pytest.mark.parametrize("name", ["77; rm", "--all", "../77", "", "７７"])
def test_a_name_that_a_box_gives_itself_is_never_an_option_or_a_path(name: str) -> None:
    assert command_for_box("vast", name) is None and command_for_box("runpod", name) is None
    assert command_for_box("lambda", "77") is None


@pytest.mark.parametrize(
    ("instance", "printed", "host", "port", "right"),
    [
        (VAST, [{"id": 77, "public_ipaddr": "1.2.3.4", "ports": {"22/tcp": [{"HostPort": "41022"}]}}], "1.2.3.4", 41022, True),
        (VAST, [{"id": 77, "ssh_host": "ssh4.vast.ai", "ssh_port": 20766}], "ssh4.vast.ai", 20766, True),
        (VAST, [{"id": 77, "ssh_host": "ssh4.vast.ai", "ssh_port": 20766}], "ssh4.vast.ai", 20767, True),
        (VAST, [{"id": 77, "ssh_host": "ssh4.vast.ai", "ssh_port": 20766}], "ssh4.vast.ai", 20800, False),
        (VAST, [{"id": 78, "public_ipaddr": "1.2.3.4", "ssh_port": 41022}], "1.2.3.4", 41022, False),
        (VAST, [{"id": 77, "public_ipaddr": "1.2.3.5", "ssh_port": 41022}], "1.2.3.4", 41022, False),
        (POD, {"id": "abc9", "ssh": {"ip": "1.2.3.4", "port": 41022}}, "1.2.3.4", 41022, True),
        (POD, {"id": "abc9", "ssh": {"error": "pod not ready"}}, "1.2.3.4", 41022, False),
        (POD, "no such pod", "1.2.3.4", 41022, False),
    ],
)  # fmt: skip
def test_a_box_is_its_providers_only_at_the_address_that_the_provider_gives(
    instance: Instance, printed: object, host: str, port: int, right: bool
) -> None:
    assert has_address(instance, json.dumps(printed), Host("box", host, port, "root")) == right
