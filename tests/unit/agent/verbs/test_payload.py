import hashlib
import io
import os
import stat
import zipfile
from pathlib import Path

import pytest

from remote_payload.agent.verbs.box.install_payload import install_payload
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import BoxPaths
from remote_payload.agent.wire.request import Request
from runner.transport import bundle


@pytest.fixture
def box(tmp_path):
    return BoxPaths(str(tmp_path / "root"))


def install(box, data, sha256=None, piece=1000):
    request = Request({"sha256": sha256 or hashlib.sha256(data).hexdigest()}, box)
    pieces = [data[start : start + piece] for start in range(0, len(data), piece)]
    request.blobs = lambda: iter(pieces)
    return install_payload(request)


def zipped(*members):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for member, content in members:
            archive.writestr(member, content)
    return packed.getvalue()


def inside(box):
    folder = Path(box.root, "payload")
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_the_real_package_is_unpacked_under_its_sha256(box):
    packed = bundle.payload()
    assert install(box, packed.data, piece=1 << 16) == {}
    final = Path(box.payload(packed.sha256))
    here = Path(__file__).parents[4] / "remote_payload" / "settings" / "setting.py"
    assert (final / "remote_payload" / "settings" / "setting.py").read_bytes() == here.read_bytes()
    assert inside(box) == [packed.sha256]


def test_a_version_that_is_there_is_left_alone_and_the_upload_drained(box):
    data = zipped(("a.py", "1"))
    install(box, data)
    marked = Path(box.payload(hashlib.sha256(data).hexdigest()), "mark")
    marked.write_text("")
    install(box, data)
    assert marked.exists()


def test_a_flipped_bit_is_noticed_and_leaves_nothing(box):
    data = bytearray(zipped(("a.py", "1")))
    wanted = hashlib.sha256(data).hexdigest()
    data[10] ^= 1
    with pytest.raises(AgentError, match="damaged") as failure:
        install(box, bytes(data), wanted)
    assert failure.value.kind == "TransferFailed" and inside(box) == []


def test_an_upload_that_breaks_off_leaves_nothing(box):
    request = Request({"sha256": "0" * 64}, box)
    request.offer_blob(b"half")
    request.cancelled.set()
    with pytest.raises(AgentError, match="half-way"):
        install_payload(request)
    assert inside(box) == []


def link(name, target):
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member, target


@pytest.mark.parametrize(
    "member",
    [("../../escaped", "x"), ("/escaped", "x"), ("a/../../b", "x"), ("new\nline", "x"), link("l", "/etc/passwd")],
)
def test_a_zip_that_would_write_elsewhere_is_refused_whole(box, tmp_path, member):
    with pytest.raises(AgentError, match="unusable member"):
        install(box, zipped(("good.py", "1"), member))
    assert inside(box) == [] and not (tmp_path / "escaped").exists()


def test_a_zip_bomb_is_refused_before_it_is_unpacked(box, monkeypatch):
    monkeypatch.setattr("remote_payload.agent.verbs.box.install_payload.MAX_UNPACKED", 1 << 20)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"\0" * (2 << 20))
    with pytest.raises(AgentError, match="far too large"):
        install(box, packed.getvalue())
    assert inside(box) == []


def test_bytes_that_are_no_zip_are_a_named_error(box):
    with pytest.raises(AgentError, match="not a zip"):
        install(box, b"PK not really")


@pytest.mark.parametrize("sha256", [None, "../x", "A" * 64, 5])
def test_only_a_sha256_is_a_name(box, sha256):
    with pytest.raises(AgentError, match=r"not a sha256|sha256 in the request is a number"):
        install_payload(Request({"sha256": sha256}, box))
    assert not os.path.exists(box.root)
