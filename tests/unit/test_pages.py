"""The files that ARCHITECTURE.md and the pages under docs/ name exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["ARCHITECTURE.md", "README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]
# What a shorter name may be relative to.
ABOVE = [
    "",
    "runner",
    "remote_payload",
    "remote_payload/agent",
    "remote_payload/train",
    "runner/domain",
    "runner/workflow",
]
ABOVE += ["runner/transport"]
FILE = re.compile(r"`([\w./]+\.py)`")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_files_that_are_there(page: str) -> None:
    named = {
        name for name in FILE.findall((ROOT / page).read_text("utf-8")) if "/" in name and not name.startswith(".")
    }
    missing = {name for name in named if not any((ROOT / above / name).exists() for above in ABOVE)}
    assert not missing


def test_the_architecture_names_files() -> None:
    assert len(FILE.findall((ROOT / "ARCHITECTURE.md").read_text("utf-8"))) > 60
