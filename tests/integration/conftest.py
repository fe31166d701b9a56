"""A home on a box of this test's own, and an agent working in it."""

import pytest

from remote_payload.agent.wire.paths import BoxPaths
from tests.support.agent import running_agent


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def agent(home):
    with running_agent(home) as session:
        yield session


@pytest.fixture
def paths(home):
    return BoxPaths(str(home / ".gpurun-box"))
