"""The program that makes a box have the agent. As a whole it is shown by tests/integration/agent/test_agent_bootstrap.py."""

import hashlib
import io
import os
import subprocess
import sys
import zipfile

import pytest

from remote_payload.agent.box import provider
from remote_payload.agent.wire import paths
from runner.transport.bootstrap import on_box
from runner.transport.bootstrap.on_box import Laptop, Refused, is_there, make_root, unpack


def test_it_spells_names_as_the_agent_does():
    assert (paths.ROOT_NAME, paths.SAFE_PATH.pattern) == (on_box.ROOT_NAME, on_box.SAFE_PATH)
    assert (paths.ROOT_NAME, paths.SAFE_PATH.pattern) == (provider.ROOT_NAME, provider.SAFE_PATH)


def test_it_loads_nothing_that_it_may_not_need():
    """Each import is waited for by every connection: what these few load by themselves is all."""
    program = "import sys; sys.path.insert(0, sys.argv[1]); import %s; print(*sorted(sys.modules))"
    loaded = [
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", program % names, os.path.dirname(on_box.__file__)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for names in ("on_box", "base64, hashlib, os, re, sys, zlib")
    ]
    assert set(loaded[0]) - set(loaded[1]) == {"on_box"}


@pytest.fixture
def standard_input(monkeypatch):
    """What is written to this descriptor can be read from descriptor 0 of the program."""
    reader, writer = os.pipe()
    really = os.read
    monkeypatch.setattr(
        on_box.os, "read", lambda descriptor, count: really(reader if descriptor == 0 else descriptor, count)
    )
    yield writer
    os.close(reader)
    os.close(writer)


def test_bytes_of_the_command_line_come_before_those_of_standard_input_and_no_byte_too_many_is_read(standard_input):
    os.write(standard_input, b"cd 7\nABCDEFGHIJ")
    laptop = Laptop("n", b"ab")
    assert laptop.read_words() == ["abcd", "7"]
    assert laptop.read(7) == b"ABCDEFG"
    assert on_box.os.read(0, 100) == b"HIJ"


def test_a_line_without_an_end_is_read_no_further_than_its_limit(standard_input):
    os.write(standard_input, b"x" * 1000)
    assert laptop_words(Laptop("n", b"")) == on_box.MAX_LINE


def laptop_words(laptop):
    (word,) = laptop.read_words()
    return len(word)


def test_the_root_lies_in_the_volume_or_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for volume, top in ((str(tmp_path / "volume") + "/", tmp_path / "volume"), ("-", tmp_path / "home")):
        top.mkdir()
        for _ in range(2):
            assert make_root(volume) == f"{top}/.gpurun-box"
        assert (top / ".gpurun-box" / "agent").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("volume", ["relative", "/a b", "/a$b", "/h\u00f6me"])
def test_a_folder_that_a_shell_could_misread_is_refused_by_its_name(volume):
    with pytest.raises(Refused) as refused:
        make_root(volume)
    assert (refused.value.reason, str(refused.value)) == ("path", ascii(volume))


def test_a_volume_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(OSError, match="is not a folder"):
        make_root(str(tmp_path / "absent"))
    assert list(tmp_path.iterdir()) == []


def zipapp(folder):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("package/module.py", "x = 1\n")
    (folder / "a.pyz").write_bytes(data.getvalue())
    return str(folder / "a.pyz")


def test_an_agent_is_known_by_its_content(tmp_path):
    file = zipapp(tmp_path)
    sha256 = hashlib.sha256((tmp_path / "a.pyz").read_bytes()).hexdigest()
    assert is_there(file, sha256)
    assert not is_there(file, "0" * 64)
    assert not is_there(file + ".absent", sha256)


def test_an_agent_is_unpacked_once_and_imported_from_the_zip_where_that_fails(tmp_path):
    file = zipapp(tmp_path)
    folder = str(tmp_path / "a")
    assert unpack(file, folder) == folder
    (tmp_path / "a" / "kept").touch()
    assert unpack(file, folder) == folder and (tmp_path / "a" / "kept").exists()

    (tmp_path / "taken").write_text("a file has the name")
    assert unpack(file, str(tmp_path / "taken")) == file
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.pyz", "taken"]
