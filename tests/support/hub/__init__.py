"""A hub on loopback that the real huggingface_hub client talks to, and that remembers every request.

It serves what the client asks for when it logs in, checks access, lists and downloads: whoami, model information,
auth-check, the tree, and files by ``resolve`` (small ones directly, weights through a redirect as on the public hub, with
ranges). Answers carry the headers that the client tells errors apart by. A download can be made to stall.

The fixture ``hub`` is everybody's (tests/conftest.py):

    def test_…(hub: Hub, tmp_path):
        hub.add_model("acme/tiny", folder, gated=True)
        hub.add_account("hf_reader", "ada", granted=("acme/tiny",))
        subprocess.run([…], env=hub.environment(tmp_path / "home", token="hf_reader"))
        assert hub.downloads("model.safetensors")
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

import pytest

from tests.support.hub.server import Handler
from tests.support.hub.state import Hub

__all__ = ["Hub", "hub", "running_hub"]


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on a free port of 127.0.0.1, for as long as the block lasts."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HandlerOfThisHub", (Handler,), {"state": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    hub.storage = f"http://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.release()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A running hub without models or accounts."""
    with running_hub() as running:
        yield running
