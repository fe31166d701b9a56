"""Who reads the output: a person at a terminal, a pipe, a coding agent; whom a command may ask, and which host it means."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from runner import host_notes, store
from runner.cli import audience, options
from runner.cli.group import COMMANDS, gpurun
from runner.domain.job import Job
from runner.domain.run import Refusal, Run, mint_id

LONG = "a-host-whose-name-is-so-long-that-no-table-of-eighty-columns-can-show-all-of-it.example.org"
DAY = 86400.0


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path))
    for name in ("GPURUN_HOST", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    yield


def record(
    name: str, *, age: float = 0.0, refused: bool = False, started: bool = False, parent: str | None = None
) -> Run:
    why = Refusal("box", "the disk is full") if refused else None
    now = time.time() - age
    run = Run(
        mint_id(name, now), Job(name), LONG, now, not_started=why, launched=started, attempted=started, parent=parent
    )
    store.create(run)
    return run


def at_a_terminal(*words: str, **variables: str) -> tuple[int, str]:
    """``gpurun`` at a terminal of 80 columns, nobody typing: exit code and what it shows."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm", **variables}
    process = subprocess.Popen(
        [sys.executable, "-m", "runner.cli", *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 4096):
            shown += data
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    return process.wait(), shown.decode()


def test_a_coding_agent_at_a_terminal_gets_what_a_pipe_gets() -> None:
    record("legal", refused=True)
    code, shown = at_a_terminal("list")
    assert code == 0 and "\x1b[" in shown and LONG not in shown
    for variable in ("AI_AGENT", "CLAUDECODE"):
        code, shown = at_a_terminal("list", **{variable: "1"})
        assert code == 0 and "\x1b" not in shown and LONG in shown
    code, shown = at_a_terminal("status", "no-such-run", NO_COLOR="1")
    assert code == 2 and shown.startswith("error: this machine knows no run")
    code, shown = at_a_terminal("clean", "--not-started", AGENT="mine")
    assert code == 2 and "nobody can be asked here, and nothing was done: add --yes, or --dry-run" in " ".join(
        shown.split()
    )
    assert store.run_ids()


@pytest.mark.parametrize("name", audience.AGENT_VARIABLES)
def test_each_variable_counts_unless_it_is_empty(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert audience.is_person(Terminal()) and not audience.is_person(io.StringIO())
    monkeypatch.setenv(name, " ")
    assert audience.is_person(Terminal())
    monkeypatch.setenv(name, "x")
    assert not audience.is_person(Terminal())


def test_records_of_runs_that_never_started_can_be_removed_and_no_other() -> None:
    refused, cut_off = record("refused", refused=True), record("cut-off", age=2 * DAY)
    under_way, started = record("under-way"), record("started", started=True)
    resumed = record("resumed", refused=True, parent=started.run_id)
    store.update(started, went_on_as=resumed.run_id)
    kept = {under_way.run_id, started.run_id}

    def run(*words: str, code: int = 0) -> str:
        shown = CliRunner().invoke(gpurun, ["clean", "--not-started", *words])
        assert shown.exit_code == code, shown.output
        return shown.output

    assert "nobody can be asked" in run(code=2)
    assert "the disk is full" in run("--dry-run") and len(store.run_ids()) == 5
    removed = json.loads(run("--yes", "--json"))["removed"]
    assert sorted(removed) == sorted((refused.run_id, cut_off.run_id, resumed.run_id))
    assert set(store.run_ids()) == kept and store.load(started.run_id).went_on_as is None
    with pytest.raises(Exception, match="was started"):
        CliRunner().invoke(
            gpurun, ["clean", "--not-started", "--yes", "started"], catch_exceptions=False, standalone_mode=False
        )
    run("--yes", under_way.run_id)  # who names it knows that nobody submits it any more
    assert store.run_ids() == [started.run_id]


@click.command()
@options.hosts_option
def hosts(hosts: tuple[str, ...]) -> None:
    click.echo("\n".join(hosts))


def test_the_host_is_the_one_typed_else_the_variable_else_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    def meant(*words: str) -> str:
        return CliRunner().invoke(hosts, words).output.strip()

    assert "Missing option '--host'" in meant() and "gpurun hosts default HOST" in meant()
    line = "ssh -p 41022 root@1.2.3.4"
    assert f"{line} (gpurun hosts default)" in CliRunner().invoke(gpurun, ["hosts", "default", line]).output
    assert meant() == line and meant("--host", "a", "--host", "b", "--host", "a") == "a\nb"
    monkeypatch.setenv("GPURUN_HOST", "ssh root@5.6.7.8 -p 22")
    assert meant() == "ssh root@5.6.7.8 -p 22" and meant("--host", "a") == "a"
    monkeypatch.delenv("GPURUN_HOST")
    CliRunner().invoke(gpurun, ["hosts", "default", "root@2.2.2.2"])
    assert meant() == "root@2.2.2.2" and [name for name, note in host_notes.host_notes().items() if note.default] == [
        meant()
    ]
    assert "no default host" in CliRunner().invoke(gpurun, ["hosts", "default", "--none"]).output
    assert "Missing option" in meant()


COMPLETED = re.compile(r"runs?|targets?|hosts?|old|checkpoint|give_up|against|run_id")


def test_every_argument_and_option_that_names_a_run_a_host_or_a_checkpoint_is_completed() -> None:
    seen = set()
    with click.Context(gpurun) as context:
        for name in COMMANDS:
            command = gpurun.get_command(context, name)
            assert command is not None
            below = command.commands.values() if isinstance(command, click.Group) else ()
            for each in (command, *below):
                for parameter in each.params:
                    if COMPLETED.fullmatch(parameter.name or "") and not getattr(parameter, "is_flag", False):
                        seen.add(parameter.name)
                        assert parameter._custom_shell_complete is not None, (name, each.name, parameter.name)
    assert {"run", "runs", "target", "targets", "host", "hosts", "checkpoint", "give_up", "run_id"} <= seen


def test_a_checkpoint_of_a_target_and_a_sweep_are_completed() -> None:
    runs = [
        Run(mint_id("legal", time.time() + each), Job("legal"), "box", 1.0, submission="3fa9c210") for each in (0, 5)
    ]
    for run in runs:
        store.create(run)
    best = store.places.run_folder(runs[1].run_id) / "outputs" / "checkpoints" / "step-000100"
    best.mkdir(parents=True)
    context, parameter = click.Context(hosts), click.Argument(["target"])
    assert options.complete_target(context, parameter, "legal:st") == ["legal:step-000100"]
    assert options.complete_target(context, parameter, "no-such:") == []
    assert options.complete_run_or_sweep(context, parameter, "") == [runs[1].run_id, runs[0].run_id, "3fa9c210"]
    assert options.complete_run_or_sweep(context, parameter, "3f") == ["3fa9c210"]
