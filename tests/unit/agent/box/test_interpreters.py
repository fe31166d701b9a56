import os
import sys

import pytest

from remote_payload.agent.box.pythons import interpreters
from remote_payload.agent.box.pythons.interpreters import Interpreter
from remote_payload.agent.box.pythons.requirement import parse


def distribution(site, name, version):
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def with_torch(site, version="2.13.0", cuda="'13.0'"):
    distribution(site, "torch", version)
    (site / "torch").mkdir()
    (site / "torch" / "version.py").write_text(f"__version__ = '{version}'\ncuda: Optional[str] = {cuda}\nhip = None\n")
    return Interpreter("/x/bin/python", (3, 11, 7), "/x", (str(site),))


@pytest.fixture
def only_here(tmp_path, monkeypatch):
    """No place to look at but a folder of the test's."""
    monkeypatch.setattr(interpreters, "PLACES", ("/nonexistent", "/nonexistent", "/nonexistent"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def program(path, script):
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)


def test_this_interpreter_says_what_it_is_and_what_it_has():
    here = interpreters.ask(sys.executable)
    assert here.version == sys.version_info[:3]
    assert here.installed()["pytest"] == pytest.__version__


def test_places_are_searched_once_and_what_does_not_run_is_left_out(only_here, monkeypatch):
    monkeypatch.setattr(interpreters, "LIMIT", 2.0)
    os.symlink(sys.executable, only_here / "python3.11")
    os.symlink(sys.executable, only_here / "python3")
    program(only_here / "python", "exec sleep 30")  # hangs
    program(only_here / "python3.12", "echo no; exit 3")
    program(only_here / "python3.13", "echo []")
    os.symlink("/nowhere", only_here / "python3.14")
    named = only_here.parent / "named"
    named.mkdir()
    program(named / "mine", f'exec {sys.executable} "$@"')
    found = interpreters.find([str(named / "mine"), "relative/../python", "/dev/null"])
    assert [each.path for each in found][:2] == [str(named / "mine"), str(only_here / "python3")]
    assert len(found) <= 3  # and the one that runs the agent


def test_others_are_started_only_where_the_first_one_will_not_do(only_here):
    named, started = only_here.parent / "mine", only_here.parent / "started"
    program(named, f'exec {sys.executable} "$@"')
    program(only_here / "python3", f': > {started}; exec {sys.executable} "$@"')
    assert interpreters.find_satisfying([str(named)], None, [], None).path == str(named)
    assert not started.exists()
    missing = parse("no-such-package>=1")
    assert interpreters.find_satisfying([str(named)], None, missing, None) is None
    assert started.exists()


def test_an_interpreter_too_old_is_refused_with_its_version(tmp_path):
    program(
        tmp_path / "python", """echo '{"version": [3, 7, 1], "prefix": "", "implementation": "cpython", "site": []}'"""
    )
    with pytest.raises(ValueError, match=r"3\.7\.1; CPython 3\.8 or newer"):
        interpreters.ask(str(tmp_path / "python"))


def test_the_first_on_the_import_path_wins_and_broken_metadata_does_not_count(tmp_path):
    distribution(tmp_path / "a", "Zope.Interface", "7.0")
    distribution(tmp_path / "b", "zope_interface", "5.0")
    distribution(tmp_path / "b", "numpy", "2.0")
    (tmp_path / "a" / "half-1.0.dist-info").mkdir()
    both = Interpreter("/x", (3, 11, 0), "/x", (str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "gone")))
    assert both.installed() == {"zope-interface": "7.0", "numpy": "2.0"}


def test_what_setup_py_installed_counts_too(tmp_path):
    (tmp_path / "rouge_score-0.1.2-py3.11.egg-info").mkdir()
    (tmp_path / "rouge_score-0.1.2-py3.11.egg-info" / "PKG-INFO").write_text("Name: rouge-score\n")
    (tmp_path / "PyYAML-6.0.egg-info").write_text("Name: PyYAML\n")
    (tmp_path / "half-1.0.egg-info").mkdir()
    found = Interpreter("/x", (3, 11, 0), "/x", (str(tmp_path),)).installed()
    assert found == {"rouge-score": "0.1.2", "pyyaml": "6.0"}


def test_the_first_interpreter_that_has_everything_is_chosen(tmp_path):
    poor = Interpreter("/poor/python", (3, 11, 0), "/", (str(tmp_path / "poor"),))
    rich = Interpreter("/rich/python", (3, 12, 1), "/", (str(tmp_path / "rich"),))
    distribution(tmp_path / "poor", "six", "1.10")
    distribution(tmp_path / "rich", "six", "1.17.0")
    choose = interpreters.satisfying
    assert choose([poor, rich], None, parse("six>=1.16"), None) == rich
    assert choose([poor, rich], None, [], None) == poor
    assert choose([poor, rich], "3.12", [], None) == rich
    assert choose([poor, rich], "3.1", [], None) is None
    assert choose([poor, rich], None, parse("six>=2"), None) is None


@pytest.mark.parametrize(
    ("cuda", "driver", "runs"),
    [
        ("'13.0'", 13, True),
        ("'12.8'", 13, True),
        ("'13.0'", 12, False),
        ("None", 12, False),
        ("None", None, True),
        ("'13.0'", None, True),
    ],
)
def test_torch_counts_only_if_the_driver_runs_what_it_was_built_for(tmp_path, cuda, driver, runs):
    interpreter = with_torch(tmp_path / "site", cuda=cuda)
    assert interpreters.torch_runs(interpreter, driver) is runs
    assert (interpreters.missing(interpreter, parse("torch>=2.6"), driver) == []) is runs


CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Wed Jan  8 05:00:00 UTC 2025\nGCC version:  gcc 12\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (dvs-builder@U16)\nGCC version:\n"


@pytest.mark.stand_in
@pytest.mark.parametrize(
    ("text", "release", "cuda"),
    [
        (CLOSED.format("570.86.15"), "570.86.15", 12),
        (OPEN.format("580.65.06"), "580.65.06", 13),
        (CLOSED.format("470.256.02"), "470.256.02", 11),
        ("garbage", None, None),
        ("", None, None),
    ],
)
def test_the_driver_is_read_from_proc(tmp_path, text, release, cuda):
    (tmp_path / "version").write_text(text)
    assert interpreters.driver_release(str(tmp_path / "version")) == release
    assert interpreters.driver_cuda(str(tmp_path / "version")) == cuda


def test_without_a_driver_there_is_no_cuda(tmp_path):
    assert interpreters.driver_cuda(str(tmp_path / "version")) is None
