import os
import stat

import pytest

from remote_payload.agent.box import tools
from remote_payload.agent.verbs.box.install_tools import install_tools
from remote_payload.agent.wire.errors import AgentError
from remote_payload.agent.wire.paths import BoxPaths
from remote_payload.agent.wire.request import Request


@pytest.fixture
def box(tmp_path, monkeypatch):
    """A PATH of our own with programs that record how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("BIN", str(folder))

    def program(name, script):
        path = folder / name
        path.write_text('#!/bin/sh\necho "$(/usr/bin/basename "$0") $*" >> "$CALLS"\n' + script)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    program.calls = lambda: (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
    return program


def ask(tmp_path, wanted):
    request = Request({"tools": wanted}, BoxPaths(str(tmp_path / "root")))
    lines = []
    request.progress = lines.append
    return install_tools(request), lines


INSTALL = 'case "$*" in *install*) printf "#!/bin/sh\\n" > "$BIN/rsync"; /bin/chmod +x "$BIN/rsync"; echo Setting up rsync;; esac'


@pytest.mark.skipif(os.geteuid() != 0, reason="apt-get installs as root only")
def test_what_is_absent_is_installed_with_progress(box, tmp_path):
    box("apt-get", INSTALL)
    assert ask(tmp_path, ["rsync"]) == ({"installed": ["rsync"], "present": []}, [{"line": "Setting up rsync"}])
    assert len(box.calls()) == 1 and box.calls()[0].endswith("install --no-install-recommends rsync")
    assert ask(tmp_path, ["rsync"]) == ({"installed": [], "present": ["rsync"]}, [])


@pytest.mark.skipif(os.geteuid() != 0, reason="apt-get installs as root only")
def test_an_image_without_package_lists_is_updated_once_and_tried_again(box, tmp_path):
    box("apt-get", 'case "$*" in *update*) : > "$BIN/lists"; exit;; esac; [ -e "$BIN/lists" ] || exit 100; ' + INSTALL)
    answer, _ = ask(tmp_path, ["rsync"])
    assert answer["installed"] == ["rsync"]
    assert [call.split()[-1] for call in box.calls()] == ["rsync", "update", "rsync"]


@pytest.mark.skipif(os.geteuid() != 0, reason="apt-get installs as root only")
def test_a_failure_shows_apts_last_lines_and_the_command_to_type(box, tmp_path):
    box("apt-get", "echo E: Unable to locate package rsync; exit 100")
    with pytest.raises(AgentError, match="Unable to locate package") as failure:
        ask(tmp_path, ["rsync"])
    assert failure.value.kind == "BoxNotReady"
    assert "apt-get install -y rsync" in failure.value.hint


def test_an_ordinary_user_is_told_what_to_type(box, tmp_path, monkeypatch):
    box("apt-get", "exit 1")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(AgentError, match="only root may install") as failure:
        ask(tmp_path, ["rsync"])
    assert failure.value.hint == "Type on the box: sudo apt-get update && sudo apt-get install -y rsync"
    assert box.calls() == []


def test_a_box_of_another_kind_is_told_its_own_command(box, tmp_path):
    box("apk", "")
    with pytest.raises(AgentError, match="no apt-get") as failure:
        ask(tmp_path, ["rsync"])
    assert "apk add rsync" in failure.value.hint


@pytest.mark.parametrize("wanted", [["rsync; reboot"], ["-o"], "rsync", [["rsync"]], None])
def test_nothing_but_known_tools_can_be_asked_for(box, tmp_path, wanted):
    box("apt-get", "")
    with pytest.raises(AgentError, match=r"no such tool|in the request is"):
        ask(tmp_path, wanted)
    assert box.calls() == []


def test_why_nothing_can_be_installed_is_the_real_reason_with_the_line_to_type(box, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert tools.obstacle() == "the box has no apt-get, nor another package manager known here"
    box("dnf", "")
    assert tools.obstacle() == "the box has no apt-get (it has dnf)"
    assert tools.install_command(["rsync"]) == "dnf install -y rsync"
    box("apt-get", "")
    assert tools.obstacle() is None
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert tools.obstacle() == "only root may install it"
    assert tools.install_command(["rsync"]) == "sudo apt-get update && sudo apt-get install -y rsync"
