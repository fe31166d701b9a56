"""gpurun skill: every command and option that the file names exists, and no command is left out."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from runner.cli.group import COMMANDS, gpurun
from runner.cli.skill import FOLDER, skill
from runner.domain import errors

NAMED = re.compile(r"`(gpurun [^`]+)`|^    (gpurun .+?)(?:   .*)?$", re.M)
FLAG = re.compile(r"`(--[a-z-]+|-[a-z])`")


def commands(text: str) -> list[tuple[click.Command, list[str]]]:
    """Each command that the text names, and the options beside it: behind it, or in its line of the list."""
    found = []
    with click.Context(gpurun) as context:
        for match in NAMED.finditer(text):
            _, name, *rest = shlex.split(match[1] or match[2])
            if name in ("COMMAND", "--help"):
                continue
            command = gpurun.get_command(context, name)
            assert command is not None, match[0]
            if isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
                command = command.commands[rest[0]]
            own = rest[: rest.index("--")] if "--" in rest else rest
            line = text[match.end() : text.index("\n", match.end())] if text[: match.start()].endswith("\n- ") else ""
            found.append((command, [word for word in own if word.startswith("-")] + FLAG.findall(line)))
    return found


def test_every_command_and_option_that_the_file_names_exists() -> None:
    named = commands(skill())
    for command, flags in named:
        assert set(flags) <= {each for parameter in command.params for each in parameter.opts} | {"--help"}, (
            command.name
        )
    assert {command.name for command, _ in named} >= set(COMMANDS)
    with pytest.raises(KeyError):
        commands("- `gpurun hosts no-such`: x\n")
    (wrong,) = commands("\n- `gpurun stop`: x `--no-such`\n")
    assert wrong[1] == ["--no-such"]


def test_the_exit_codes_are_those_of_the_errors_and_stand_in_the_file_and_the_help() -> None:
    classes = [
        each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.GpurunError)
    ]
    assert {each.exit_code for each in classes} | {0, 130} == set(errors.EXIT_CODES)
    help_text = " ".join(CliRunner().invoke(gpurun, ["--help"]).output.split())
    for code, what in errors.EXIT_CODES.items():
        assert f"- {code}: {what}\n" in skill() and f"{code} {what}" in help_text


def test_the_file_has_front_matter_and_replaces_none_but_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert CliRunner().invoke(gpurun, ["skill"]).exit_code == 0
    file = FOLDER / "gpurun" / "SKILL.md"
    head, about, _ = file.read_text().split("---\n", 2)
    assert head == "" and re.fullmatch(r'name: gpurun\ndescription: "[^"]+"\n', about)
    assert max(map(len, about.splitlines())) < 1024 and len(file.read_bytes()) < 16_000
    file.write_text("mine")
    with pytest.raises(errors.UserError, match="not gpurun's"):
        CliRunner().invoke(gpurun, ["skill"], catch_exceptions=False)
    assert file.read_text() == "mine"
