"""The command line starts light: nothing heavy is loaded before a command needs it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from runner import cli

HEAVY = {"torch", "transformers", "peft", "pydantic", "rich", "fabric", "paramiko", "huggingface_hub", "yaml", "numpy"}
SCRIPT = """
import sys
from runner.cli.main import main
try:
    main({arguments!r})
except SystemExit as ended:
    assert ended.code in (0, None), ended.code
print("loaded:", *sorted(set(sys.modules) & {heavy!r}), file=sys.stderr)
"""


def loaded(*arguments: str) -> set[str]:
    script = SCRIPT.format(arguments=list(arguments), heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "loaded:" in done.stderr, done.stderr
    return set(done.stderr.rpartition("loaded:")[2].split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["submit", "--help"], ["logs", "--help"], ["list"]])
def test_help_and_list_load_nothing_heavy(arguments: list[str]) -> None:
    assert loaded(*arguments) == set()


def commands() -> list[list[str]]:
    from runner.cli.group import COMMANDS

    return [[], *([name] for name in COMMANDS), ["hosts", "forget"], ["hosts", "set"]]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_fits_eighty_columns(words: list[str]) -> None:
    from runner.cli.group import gpurun

    shown = CliRunner(env={"COLUMNS": "80"}).invoke(gpurun, [*words, "--help"], prog_name="gpurun")
    assert shown.exit_code == 0 and max(map(len, shown.output.splitlines())) <= 80, shown.output


def test_every_command_of_the_table_exists_and_has_help() -> None:
    from click.testing import CliRunner

    from runner.cli.group import COMMANDS, gpurun

    for name in COMMANDS:
        shown = CliRunner().invoke(gpurun, [name, "--help"])
        assert shown.exit_code == 0, (name, shown.output)
        assert "Usage:" in shown.output


def test_every_command_that_is_written_stands_in_one_group_of_the_help() -> None:
    from runner.cli.group import COMMANDS, GROUPS, gpurun

    named = [name for commands in GROUPS.values() for name in commands]
    assert len(named) == len(set(named)), "a command stands in two groups"
    decorator = re.compile(r"""^@click\.(?:command|group)\(\s*"([a-z-]+)\"""", re.M)
    written = {
        name: file.stem for file in Path(cli.__path__[0]).glob("*.py") for name in decorator.findall(file.read_text())
    }
    assert written == {name: module for name, (module, _) in COMMANDS.items()}
    help_text = CliRunner().invoke(gpurun, ["--help"]).output
    sections = [help_text.index(f"\n{title}:\n") for title in GROUPS]
    assert sections == sorted(sections) and list(GROUPS["The four of every run"]) == [
        "submit",
        "logs",
        "fetch",
        "smoke-test",
    ]


def test_the_readme_names_every_command_in_its_table() -> None:
    from runner.cli.group import COMMANDS

    readme = (Path(__file__).parents[3] / "README.md").read_text("utf-8")
    table = readme.partition("| to | commands |")[2].partition("\n\n")[0]
    assert [name for name in COMMANDS if not re.search(rf"`{name}\b", table)] == []


def test_a_number_that_is_none_is_said_in_words() -> None:
    from runner.cli.logs import command

    for wrong in ("x", "-1"):
        result = CliRunner().invoke(command, ["--tail", wrong])
        assert result.exit_code == 2 and f"'{wrong}' is not a valid number of lines" in result.output


def test_an_error_about_a_number_does_not_call_it_a_range() -> None:
    from runner.cli.group import gpurun

    for words in (["stop", "--grace", "x"], ["sample", "--top-p", "x"], ["sample", "--max-new-tokens", "x"]):
        result = CliRunner().invoke(gpurun, words)
        assert result.exit_code == 2 and "'x' is not a valid number." in result.output, result.output


@pytest.mark.parametrize("command", [["submit", "job.yaml", "--host", "local"], ["resume"]])
def test_ctrl_c_before_a_run_has_an_id_says_that_nothing_was_started(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from runner.cli.group import run

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("runner.jobfile.load_runs", interrupt)
    monkeypatch.setattr("runner.store.find_started", interrupt)
    with pytest.raises(SystemExit) as ended:
        run(command)
    assert ended.value.code == 130 and "Interrupted. Nothing was started." in capsys.readouterr().err
