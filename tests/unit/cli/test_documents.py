"""docs/json.md has every field of every document of ``--json``, with its type, and no other.

That the commands print these documents is in tests/e2e/test_documents.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from runner.cli import output
from runner.cli.as_document.follow import followed_document
from runner.cli.group import gpurun
from runner.domain.errors import SmokeTestFailed
from runner.domain.job import Job
from runner.domain.run import Run
from runner.local_model.report import SmokeReport
from runner.workflow.follow_up import FollowedRun
from tests.support.document_types import TYPES, differences, fields, spelled

PAGE = (Path(__file__).parents[3] / "docs" / "json.md").read_text("utf-8")
SECTIONS = {
    part.partition("\n")[0].strip(): part.partition("\n")[2]
    for part in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]
}
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \|$", re.MULTILINE)
INCLUDED = re.compile(r"all fields of \[(\w+)\]\(#(\w+)\)", re.IGNORECASE)


def documented(name: str) -> dict[str, str]:
    """The fields that the page gives a document, with their types in its words."""
    text = SECTIONS[name]
    included = [documented(other) for other, _ in INCLUDED.findall(text)]
    return {field: kind for each in [*included, dict(ROW.findall(text))] for field, kind in each.items()}


def test_every_document_has_a_section_and_every_section_is_a_document() -> None:
    assert set(SECTIONS) == set(TYPES)


@pytest.mark.parametrize("name", sorted(TYPES))
def test_the_page_has_the_fields_of_the_type(name: str) -> None:
    assert documented(name) == {field: spelled(kind) for field, kind in fields(TYPES[name]).items()}
    assert all(anchor == other.lower() for other, anchor in INCLUDED.findall(SECTIONS[name]))


def test_a_wrong_document_is_seen() -> None:
    """The comparison that the other tests rely on."""
    good = {"host": "box", "keys_removed": 1}
    seen: set[str] = set()
    assert differences(good, TYPES["Forgotten"], seen) == [] and seen == {"Forgotten"}
    assert differences({"host": "box"}, TYPES["Forgotten"], seen) == [".keys_removed is missing"]
    assert differences({**good, "more": 1}, TYPES["Forgotten"], seen) == [".more is not documented"]
    for wrong in ("1", 1.5, True, None, [1]):
        assert differences({**good, "keys_removed": wrong}, TYPES["Forgotten"], seen), wrong
    assert differences({"hosts": [7]}, TYPES["Hosts"], seen) == [".hosts[] is no Host: 7"]


def test_a_followed_run_has_its_models_and_its_error() -> None:
    run = Run("a-20260101-000000-0000", Job("a"), "box", 1.5)
    report = SmokeReport(
        folder=Path("best"), kind="causal_lm", device="cpu", device_name="cpu", dtype="float32", torch="2.9.0", load_seconds=0.5,
        samples=2, samples_per_second=20.0, tokens_per_second=80.0, peak_memory=1, counts=None, texts=("a",), comparison=None,
        not_opened=(),
    )  # fmt: skip
    for followed in (FollowedRun(run), FollowedRun(run, None, [report], SmokeTestFailed("a", hint="b"))):
        document = followed_document(followed)
        assert differences(document, TYPES["FollowedRun"], set()) == []
    assert document["error"] == {"kind": "SmokeTestFailed", "message": "a", "meaning": "", "hint": "b", "exit_code": 6}
    assert document["smoke_test"] and document["smoke_test"][0]["passed"]


def test_json_may_stand_before_a_subcommand(tmp_path: Path) -> None:
    shown = CliRunner(env={"GPURUN_HOME": str(tmp_path)}).invoke(
        gpurun, ["hosts", "--json", "set", "root@1.2.3.4", "--volume", "/w"]
    )
    assert shown.exit_code == 0 and json.loads(shown.output) == {
        "host": "root@1.2.3.4", "volume": "/w", "destroy": None,
    }  # fmt: skip


def test_a_number_that_is_not_finite_is_null_and_text_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"a": [float("nan"), {"b": float("-inf")}], "c": "\x1b\x9b\u202e\x7f", "d": 1.5})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"a": [None, {"b": None}], "c": "\x1b\x9b\u202e\x7f", "d": 1.5}
    assert printed.isascii() and printed.replace("\n", "").isprintable() and "NaN" not in printed
