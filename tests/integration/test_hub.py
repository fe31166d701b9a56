"""The hub check with the real client against a hub on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner import hub as client
from runner.domain.errors import HubAccessDenied
from runner.domain.progress import Silent
from tests.support.hub import Hub

READER = "hf_readerreaderreaderreaderreader00"
FILES = {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"w" * 5000, "tokenizer.json": b"{}"}


class Heard(Silent):
    """A reporter that keeps its warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def at_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """This process talks to the loopback hub, as READER."""
    hub.add_account(READER, "ada")
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", READER)
    return hub


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No token: neither in the environment nor stored."""
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))


def test_who_am_i_tells_name_and_role(at_hub: Hub) -> None:
    me = client.who_am_i()
    assert me is not None
    assert (me.name, me.role, me.can_write, me.token) == ("ada", "read", False, READER)
    assert READER not in repr(me)


def test_nobody_is_none(at_hub: Hub, nobody: None) -> None:
    assert client.who_am_i() is None


@pytest.mark.parametrize(
    ("role", "permissions", "can_write"),
    [
        ("read", (), False),
        ("write", (), True),
        ("fineGrained", ("repo.content.read",), False),
        ("fineGrained", ("repo.content.read", "repo.write"), True),
        (None, (), True),
    ],
)
def test_what_a_token_may_do(at_hub: Hub, role: str | None, permissions: tuple[str, ...], can_write: bool) -> None:
    at_hub.add_account(READER, "ada", role, permissions)
    me = client.who_am_i()
    assert me is not None and me.can_write is can_write


def test_a_refused_token_is_said_before_anything_else(at_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = "hf_" + "x" * 30
    monkeypatch.setenv("HF_TOKEN", wrong)
    with pytest.raises(HubAccessDenied) as refused:
        client.require_access([("acme/tiny", None)], Silent())
    assert "HF_TOKEN is refused" in refused.value.message
    assert "hf auth login" in refused.value.hint
    assert wrong not in str(refused.value) + refused.value.hint


@pytest.mark.parametrize(("role", "permissions"), [("write", ()), ("fineGrained", ("repo.write",)), (None, ())])
def test_a_token_that_may_write_does_not_travel_unless_the_job_says_so(
    at_hub: Hub, role: str | None, permissions: tuple[str, ...]
) -> None:
    at_hub.add_account(READER, "ada", role, permissions)
    at_hub.add_model("acme/tiny", FILES)
    with pytest.raises(HubAccessDenied) as refused:
        client.require_access([("acme/tiny", None)], Silent())
    assert refused.value.exit_code == 3
    assert "allow_write_token" in refused.value.hint
    identity, [answer] = client.require_access([("acme/tiny", None)], Silent(), allow_write_token=True)
    assert identity is not None and answer.readable


def test_every_model_is_told_at_which_commit(at_hub: Hub) -> None:
    first = at_hub.add_model("acme/tiny", FILES, tag="v1")
    second = at_hub.add_model("acme/tiny", {**FILES, "config.json": b"{}"})
    gated = at_hub.add_model("acme/gated", FILES, gated=True)
    at_hub.add_account(READER, "ada", granted=("acme/gated",))
    _, answers = client.require_access([("acme/tiny", "v1"), ("acme/tiny", None), ("acme/gated", gated)], Silent())
    assert [answer.commit for answer in answers] == [first, second, gated]
    assert [answer.gated for answer in answers] == [False, False, True]
    assert client.commit_of("acme/tiny", "v1") == first


def test_a_gated_model_names_itself_and_the_page_where_access_is_granted(at_hub: Hub) -> None:
    at_hub.add_model("google/embeddinggemma-300m", FILES, gated=True)
    with pytest.raises(HubAccessDenied) as refused:
        client.require_access([("google/embeddinggemma-300m", None)], Silent())
    assert refused.value.exit_code == 3
    assert "google/embeddinggemma-300m is gated" in str(refused.value)
    assert f"{at_hub.endpoint}/google/embeddinggemma-300m" in refused.value.hint
    assert not at_hub.downloads("model.safetensors")


def test_a_gated_model_without_a_token_says_how_to_log_in(at_hub: Hub, nobody: None) -> None:
    at_hub.add_model("google/embeddinggemma-300m", FILES, gated=True)
    with pytest.raises(HubAccessDenied) as refused:
        client.require_access([("google/embeddinggemma-300m", None)], Silent())
    assert "nobody is logged in" in str(refused.value)
    assert "hf auth login" in refused.value.hint
    assert [seen.status for seen in at_hub.requests] == [401]


@pytest.mark.parametrize("logged_in", [True, False])
def test_missing_and_private_models_are_not_told_apart(
    at_hub: Hub, logged_in: bool, request: pytest.FixtureRequest
) -> None:
    if not logged_in:
        request.getfixturevalue("nobody")
    at_hub.add_model("acme/secret", FILES, private=True)
    with pytest.raises(HubAccessDenied) as refused:
        client.require_access([("acme/missing", None), ("acme/secret", None)], Silent())
    assert refused.value.message.splitlines() == [
        "no such model, or a private one: acme/missing",
        "no such model, or a private one: acme/secret",
    ]
    assert ("hf auth login" in refused.value.hint) is not logged_in


def test_a_revision_that_is_not_there_is_named(at_hub: Hub) -> None:
    at_hub.add_model("acme/tiny", FILES)
    with pytest.raises(HubAccessDenied, match="acme/tiny has no revision 'v9'"):
        client.require_access([("acme/tiny", "v9")], Silent())


@pytest.mark.parametrize("name", ["a/b/c", "has space", "-x/y", "../../etc/passwd"])
def test_what_cannot_be_a_model_is_refused_without_asking(at_hub: Hub, name: str) -> None:
    [answer] = client.check_access([(name, None)], token=None)
    assert answer.readable is False and repr(name) in answer.problem
    assert not at_hub.requests


@pytest.mark.parametrize("trouble", ["down", "broken"])
def test_a_hub_that_gives_no_verdict_is_a_warning_and_an_error_when_strict(
    at_hub: Hub, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trouble == "broken":
        at_hub.broken = True
    else:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    heard = Heard()
    _, [answer] = client.require_access([("acme/tiny", None)], heard)
    assert answer.readable is None
    assert len(heard.warnings) == 1 and "acme/tiny was not checked" in heard.warnings[0]
    with pytest.raises(client.HubUnreachable) as refused:
        client.require_access([("acme/tiny", None)], heard, strict=True)
    assert refused.value.exit_code == 3
    with pytest.raises(client.HubUnreachable):
        client.commit_of("acme/tiny")
    with pytest.raises(client.HubUnreachable):
        client.fetch_config("acme/nowhere")


def test_a_hub_that_never_answers_is_given_up_on(at_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from runner.hub import client as settings

    monkeypatch.setattr(settings, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(client.HubUnreachable):
            client.who_am_i()
        assert client.check_access([("acme/tiny", None)] * 8, token=None)[0].readable is None
    assert time.monotonic() - began < 30  # for ever, without the bound


def test_fetch_config_reads_the_configuration(at_hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    at_hub.add_model("acme/tiny", FILES)
    assert client.fetch_config("acme/tiny") == {"model_type": "bert"}
    at_hub.add_model("acme/odd", {"config.json": b"[" * 100_000})
    with pytest.raises(client.HubUnreachable, match="is not a configuration"):
        client.fetch_config("acme/odd")
    at_hub.add_model("acme/empty", {"README.md": b""})
    with pytest.raises(HubAccessDenied, match=r"acme/empty has no config\.json"):
        client.fetch_config("acme/empty")


def test_fetch_model_brings_weights_and_no_code(at_hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    hostile = {"modeling_evil.py": b"raise SystemExit", "pytorch_model.bin": b"\x80\x04", "onnx/model.safetensors": b""}
    commit = at_hub.add_model("acme/tiny", FILES | hostile)
    told: list[tuple[float | None, float | None]] = []

    class Listening(Silent):
        def update(self, done: float | None = None, total: float | None = None, note: str | None = None) -> None:
            told.append((done, total))

    folder = client.fetch_model("acme/tiny", None, Listening())
    assert folder.name == commit
    assert {path.name for path in folder.rglob("*")} == set(FILES)
    assert told[-1][0] == sum(map(len, FILES.values()))
    before = len(at_hub.requests)
    assert client.fetch_model("acme/tiny", commit, Silent()) == folder
    assert len(at_hub.requests) == before  # a known commit that is complete needs no network


def test_a_private_model_is_fetched_with_the_token_and_refused_without(
    at_hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    at_hub.add_model("acme/gated", FILES, gated=True)
    with pytest.raises(HubAccessDenied, match="acme/gated is gated"):
        client.fetch_model("acme/gated", None, Silent())
    at_hub.add_account(READER, "ada", granted=("acme/gated",))
    assert (client.fetch_model("acme/gated", None, Silent()) / "model.safetensors").read_bytes() == b"w" * 5000


LOAD = """
import json, sys
from transformers import AutoModel, AutoTokenizer
model = AutoModel.from_pretrained(sys.argv[1])
tokens = AutoTokenizer.from_pretrained(sys.argv[1])("The licensor grants")["input_ids"]
print(json.dumps({"kind": type(model).__name__, "tokens": len(tokens)}))
"""


def load_as_the_box_does(
    hub: Hub,
    home: Path,
    model: str,
    token: str | None,
) -> subprocess.CompletedProcess[str]:
    """from_pretrained in a fresh process that knows the token only by HF_TOKEN_PATH."""
    command = [sys.executable, "-c", LOAD, model]
    environment = hub.environment(home, token=token) | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_a_process_with_only_a_token_file_downloads_and_loads_a_gated_model(
    hub: Hub,
    tmp_path: Path,
) -> None:
    from tests.support.models.tiny_models import save_tiny_model

    commit = hub.add_model("acme/tiny", save_tiny_model("bert", tmp_path / "model"), gated=True)
    hub.add_account(READER, "ada", granted=("acme/tiny",))

    refused = load_as_the_box_does(hub, tmp_path / "stranger", "acme/tiny", None)
    assert refused.returncode != 0 and "gated repo" in refused.stderr
    assert not hub.saw(READER)

    loaded = load_as_the_box_does(hub, tmp_path / "home", "acme/tiny", READER)
    assert loaded.returncode == 0, loaded.stderr
    assert json.loads(loaded.stdout)["kind"] == "BertModel"
    assert (tmp_path / "home/hub/models--acme--tiny/snapshots" / commit / "model.safetensors").exists()
    assert all(seen.token == READER for seen in hub.downloads("config.json") if seen.status == 200)
    assert [seen.token for seen in hub.downloads("model.safetensors") if seen.path.startswith("/large")] == [None]


def test_a_download_that_stalls_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    """The loopback hub itself: what tests of a stalled download on the box rely on."""
    content = bytes(range(256)) * 48_000  # the client writes 10 MiB at a time
    hub.add_model("acme/big", {"model.safetensors": content, "config.json": b"{}"})
    hub.stall("model.safetensors", after=11_000_000)
    code = "import sys; from huggingface_hub import hf_hub_download as get; print(get('acme/big', 'model.safetensors'))"
    environment = hub.environment(tmp_path / "home") | {"HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "timed out" in done.stderr
    assert Path(done.stdout.strip()).read_bytes() == content
    assert any("range" in seen.headers for seen in hub.downloads("model.safetensors"))
