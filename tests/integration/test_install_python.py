"""A box without Python: installed by apt-get where root may, named where not."""

import os
from pathlib import Path
from typing import Any

import pytest

from runner.domain import places
from runner.domain.errors import BoxNotReady
from runner.domain.job import Job
from runner.domain.progress import Silent
from runner.local_box import LocalBox, embedded
from runner.transport import known_hosts
from runner.transport.bootstrap import command
from runner.workflow.check import check
from runner.workflow.connect import ReconnectingLink

APT = """#!/bin/sh
echo "apt-get $*" >> "$HOME/apt.log"
[ "$1" = install ] && ln -s /usr/bin/python3 "$HOME/python3"
exit 0
"""


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An embedded box whose only Python is the one that its apt-get (a shim) brings."""
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(command, "SHELL", command.SHELL.replace(command.PLACES, "$HOME/python3"))
    shims = tmp_path / "shims"
    shims.mkdir()
    (shims / "apt-get").write_text(APT)
    (shims / "apt-get").chmod(0o755)
    plain = LocalBox._config
    path = f' "PATH={shims}:/usr/bin:/bin"'
    monkeypatch.setattr(LocalBox, "_config", lambda self, port: plain(self, port).rstrip("\n") + path + "\n")
    box = embedded()
    yield box
    box.stop()


def job(folder: Path) -> Job:
    return Job(name="a", command=("sh",), outputs=("m",)).at(folder)


def ask(box: LocalBox) -> Any:
    host = box.ensure()
    if not known_hosts.pinned(places.known_hosts(), host.known_as):
        known_hosts.pin(places.known_hosts(), host.known_as, known_hosts.Key(*box.host_key))

    answers: list[Any] = []
    with ReconnectingLink(host, Silent(), install_python=True) as connection:
        while not answers:
            with connection.link() as link:
                answers.append(link.agent.all_status().runs)
    return answers[0]


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: the box may install only as root")
def test_python_is_installed_once_and_the_agent_starts(box: LocalBox, tmp_path: Path) -> None:
    [checked] = check([job(tmp_path)], "local", Silent())
    assert checked.ready and "gpurun submit installs it" in checked.findings[0].said
    assert not (box.home / "apt.log").exists()  # looked, and touched nothing
    assert ask(box) == ()
    assert ask(box) == ()
    assert (box.home / "apt.log").read_text().count("apt-get install") == 1


def test_where_it_may_not_be_installed_the_line_to_type_is_named(box: LocalBox, tmp_path: Path) -> None:
    (tmp_path / "shims" / "apt-get").write_text("#!/bin/sh\necho no network\nexit 100\n")
    with pytest.raises(BoxNotReady) as caught:
        ask(box)
    assert "apt-get install -y python3" in caught.value.hint


def test_why_it_may_not_be_installed_is_said_before_anything_is_sent(box: LocalBox, tmp_path: Path) -> None:
    (tmp_path / "shims" / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "shims" / "id").chmod(0o755)
    with pytest.raises(BoxNotReady, match="only root may install it"):
        check([job(tmp_path)], "local", Silent())
    assert not (box.home / "apt.log").exists()
