"""runner/workflow/submission/checks.py: a box against what a job needs, as a table."""

from pathlib import Path
from typing import Any

import pytest

from runner.domain.answers.box import Box
from runner.domain.answers.reading import Impossible
from runner.domain.errors import BoxNotReady
from runner.domain.recorded_job import read_job
from runner.workflow.submission import checks
from runner.workflow.submission.plan import Plan, Requirements, requirements_of

GIB = 2**30
GPU = {"index": 0, "name": "RTX 3090", "uuid": "GPU-1", "memory_total": 24 * GIB, "memory_used": 0}
GOOD = {
    "root": "/root/.gpurun-box", "user": "root", "python": "3.11.2", "os": "Ubuntu", "cpus": 8, "ram": 32 * GIB,
    "disk": {"free": 100 * GIB, "total": 200 * GIB, "inodes_free": 10**6, "writable": True},
    "rsync": "3.2.7", "apt": True, "driver": "580.1", "gpus": [GPU], "shm": 8 * GIB, "have": {"program": "/bin/x"}, "in_container": True,
}  # fmt: skip


def look(resources: dict[str, Any], **facts: Any) -> list[checks.Finding]:
    job = read_job({"name": "x", "command": ["x"], "resources": resources}, Path("/"))
    plan = Plan(job, None, (), Requirements(None, None, "", ()), None, {})
    return checks.examine(Box.parse({**GOOD, **facts}), plan)


def look_for_program(word: str, have: dict[str, Any], **environment: Any) -> list[tuple[str, str, str]]:
    job = read_job({"name": "x", "command": [word], "resources": {"gpus": 0}, "environment": environment}, Path("/"))
    plan = Plan(job, None, (), requirements_of(job), None, {})
    found = checks.examine(Box.parse({**GOOD, "have": have}), plan)
    return [(each.verdict, each.said, each.hint) for each in found if each.what == "program"]


FOUND = {"interpreter": "/usr/bin/python3"}


@pytest.mark.parametrize(
    ("word", "have", "environment", "verdict"),
    [
        ("python", {**FOUND, "program": "/usr/bin/python3"}, {}, "ok"),
        ("torchrun", FOUND, {}, "fail"),
        ("torchrun", FOUND, {"requirements": ("torch",)}, "fail"),  # found with torch, but without its program
        ("torchrun", {"interpreter": None}, {"requirements": ("torch",)}, None),  # comes with what is built
        ("torchrun", {"interpreter": None, "env": True}, {"requirements": ("torch",)}, "fail"),
        ("python", {"interpreter": None}, {"python": "3.9"}, None),
        ("make", {"interpreter": None}, {"python": "3.9"}, "fail"),
        ("/opt/tool", FOUND, {}, "fail"),
        ("./run.sh", FOUND, {}, None),
    ],
)
def test_a_program_that_the_box_lacks_is_found_before_the_push(
    word: str, have: dict[str, Any], environment: dict[str, Any], verdict: str | None
) -> None:
    found = look_for_program(word, have, **environment)
    assert [each[0] for each in found] == ([verdict] if verdict else [])
    assert all(word in said and (verdict == "ok" or hint) for _, said, hint in found)


def failing(found: list[checks.Finding]) -> list[str]:
    return [finding.what for finding in found if finding.verdict == "fail"]


@pytest.mark.parametrize(
    ("resources", "facts", "expected"),
    [
        ({}, {}, []),
        ({"gpus": 0}, {"gpus": []}, []),
        ({}, {"gpus": []}, ["GPU"]),
        ({}, {"gpus": None}, ["GPU"]),
        ({"gpus": 2}, {}, ["GPU"]),
        ({"gpus": "all"}, {}, []),
        ({"vram": "40GiB"}, {}, ["GPU"]),
        ({"gpus": 1, "vram": "40GiB"}, {"gpus": [GPU, {**GPU, "index": 1, "memory_total": 80 * GIB}]}, []),
        ({"gpus": "all", "vram": "40GiB"}, {"gpus": [GPU, {**GPU, "index": 1, "memory_total": 80 * GIB}]}, ["GPU"]),
        ({"disk": "150GiB"}, {}, ["disk"]),
        ({}, {"disk": {"free": 0, "total": 1, "writable": False}}, ["disk"]),
        ({}, {"disk": {"free": 100 * GIB, "total": 200 * GIB, "inodes_free": 5, "writable": True}}, ["disk"]),
        ({}, {"disk": {"free": 10**6, "total": 200 * GIB, "writable": True}}, ["disk"]),
    ],
)
def test_what_is_missing_is_found_before_anything_is_sent(
    resources: dict[str, Any], facts: dict[str, Any], expected: list[str]
) -> None:
    found = look(resources, **facts)
    assert failing(found) == expected
    assert all(finding.hint for finding in found if finding.verdict == "fail")


def test_every_failure_is_said_at_once() -> None:
    found = look({"gpus": 4}, disk={"free": 0, "total": 1, "writable": False})
    with pytest.raises(BoxNotReady) as caught:
        checks.fail_if_not_ready(found)
    assert "GPU" in caught.value.message and "disk" in caught.value.message and caught.value.exit_code == 3


def test_a_gpu_that_somebody_uses_is_mentioned() -> None:
    said = [finding.said for finding in look({}, gpus=[{**GPU, "memory_used": 9 * GIB}]) if finding.verdict == "warn"]
    assert said == ["GPU 0 has 9.0 GiB in use by somebody else"]


@pytest.mark.parametrize(
    "facts",
    [
        {"gpus": [GPU] * 99},
        {"gpus": [{**GPU, "memory_total": 1 << 62}]},
        {"gpus": [{**GPU, "memory_total": -1}]},
        {"gpus": "many"},
        {"cpus": 1e30},
        {"ram": True},
        {"disk": []},
        {"rsync": 7},
    ],
)
def test_absurd_facts_are_refused_by_name(facts: dict[str, Any]) -> None:
    with pytest.raises(Impossible, match=next(iter(facts))):
        Box.parse({**GOOD, **facts})


def test_an_escape_in_a_gpu_name_does_not_reach_anybody() -> None:
    box = Box.parse({**GOOD, "gpus": [{**GPU, "name": "RTX\x1b]52;c;ZXZpbA==\x07 4090"}]})
    assert box.gpus[0].name == "RTX 4090"


@pytest.mark.parametrize(
    "have",
    [
        {"patch": {}},
        {"patch": {"run_id": "legal-20260102-142030-9a7c", "marks": 5}},
        {"patch": {"run_id": "legal-20260102-142030-9a7c", "marks": "*"}},
        {"patch": {"run_id": "x", "marks": ""}},
        {"patch": "marks"},
        {"link_dest": {"path": "/etc", "read_at": None}},
        {"data_link_dest": {"texts": {"path": "/root/.gpurun-box/../x"}}},
        {"attempts": {"texts": ["../x"]}},
        {"data": {"texts": "yes"}},
    ],
)
def test_what_the_box_has_already_is_read_field_by_field(have):
    with pytest.raises(Impossible, match=f"have.{next(iter(have))}"):
        Box.parse({**GOOD, "have": have})
