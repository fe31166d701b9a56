"""The command line that starts an agent, and the program in it."""

import ast
import random
import string

import pytest

from remote_payload.agent.box import provider
from remote_payload.agent.wire.paths import BoxPaths
from runner.domain.host import HOME
from runner.transport.bootstrap import on_box
from runner.transport.bootstrap.command import beside_command, fits_command, opening, program, start_command

NONCE = "0123456789abcdef" * 2


def test_the_command_holds_nothing_that_a_login_shell_could_read_in_its_own_way():
    command = start_command(NONCE, "/workspace", opening("a" * 64, random.Random(0).randbytes(2700)))
    quoted = command.split("'")
    assert len(quoted) == 3 and quoted[2].startswith(f" gpurun {NONCE} /workspace ")
    assert not set("\n\\!") & set(command)
    for each in (command, start_command(NONCE, None), start_command(NONCE, HOME)):
        assert max(len(word) for word in each.replace("'", " ").split(" ")) < 4000  # csh: "Word too long"


def test_nor_does_the_command_of_a_program_beside_a_run():
    command = beside_command(BoxPaths("/w/.gpurun-box"), "a" * 64, "-", ["a'b", "$(id)", "!", "\n", "é"])
    head, script, rest = command.split("'")
    assert head == "exec /bin/sh -c " and not set("\n\\!") & set(script)
    assert not set(rest) - set(" /.-+=" + string.ascii_letters + string.digits)


def test_what_is_long_or_names_a_url_does_not_go_into_the_command():
    assert fits_command(b"{}" * 5000)
    assert not fits_command(random.Random(0).randbytes(3100))
    assert not fits_command(b'{"requirements": ["tool @ https://user:password@example.com/tool.whl"]}')


@pytest.mark.parametrize("volume", ["relative", "/a b", "/a;b", "/a'b", "/$(id)", "", "-", "/a\nb"])
def test_a_volume_that_a_shell_could_mistake_is_refused(volume):
    with pytest.raises(ValueError, match="volume"):
        start_command(NONCE, volume)


def without_docstrings(source):
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.dump(tree)


def test_the_program_is_the_file_without_its_comments_and_docstrings():
    with open(on_box.__file__, encoding="utf-8") as file:
        source = file.read()
    assert ast.dump(ast.parse(program())) == without_docstrings(source) != ast.dump(ast.parse(source))
    lines = program().decode().splitlines()
    assert not [line for line in lines if '"""' in line or line.lstrip().startswith("#")]


def test_to_an_unknown_box_it_begins_with_the_choice_of_a_folder():
    with open(provider.__file__, encoding="utf-8") as file:
        chooser = without_docstrings(file.read())
    longer, shorter = ast.parse(program(choosing=True)).body, ast.parse(program()).body
    assert [ast.dump(each) for each in longer[-len(shorter) :]] == [ast.dump(each) for each in shorter]
    first = longer[: -len(shorter) - 2]
    assert ast.dump(ast.Module(first, [])) == chooser
    assert not set(names(first)) & set(names(shorter)) - {"ROOT_NAME", "SAFE_PATH"}


def names(body):
    """What a module defines at its top."""
    return [each.name for each in body if isinstance(each, (ast.ClassDef, ast.FunctionDef))] + [
        target.id for each in body if isinstance(each, ast.Assign) for target in each.targets
    ]


@pytest.mark.parametrize("choosing", [False, True])
def test_the_program_is_python_3_8(choosing):
    ast.parse(program(choosing=choosing), feature_version=(3, 8))
