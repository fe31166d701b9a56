"""Fixtures of the fault tests."""

import pytest

from tests.support.box import box as box

# Begun first: with few tests that take long they would be dealt out last, and one worker would go on alone.
LONGEST = ["test_submit.py", "test_fetch.py", "test_queue.py", "test_stream.py", "test_trust.py", "test_run.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def turn(item: pytest.Item) -> int:
        named = item.path.parent.name in ("faults", "generated") and item.path.name in LONGEST
        return LONGEST.index(item.path.name) if named else len(LONGEST)

    items.sort(key=turn)
