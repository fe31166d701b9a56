"""runner/transport/resolve.py and ssh_tokens.py: what ``ssh -G`` prints, read back."""

import subprocess
from pathlib import Path

import pytest

from runner.transport.resolve import _trust, split_files
from runner.transport.ssh_tokens import expand, expand_path, tokens


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/a/known_hosts /a/known_hosts2", ["/a/known_hosts", "/a/known_hosts2"]),
        ("/a b/known /c", ["/a b/known", "/c"]),
        ("/x/one two three", ["/x/one two three"]),
        ("~/known %d/other", ["~/known", "%d/other"]),
        ("none", []),
        ("", []),
    ],
)
def test_names_with_spaces_are_put_together_again(line: str, expected: list[str]) -> None:
    assert split_files(line) == expected


def test_a_second_part_that_looks_like_a_path_belongs_to_the_first_where_only_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a ").mkdir()
    file = tmp_path / "a " / "known"
    file.touch()
    assert split_files(f"{tmp_path}/a /known /other") == [str(file), "/other"]


def test_tokens_and_variables_mean_what_they_mean_to_openssh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYS", "/keys")
    monkeypatch.setenv("HOME", "/home/me")
    known = tokens("box", "1.2.3.4", "2222", "root")
    assert expand("%r_%h:%p %n %% %?", known) == "root_1.2.3.4:2222 box % %?"
    assert expand_path("~/.ssh/%r_%h", known) == "/home/me/.ssh/root_1.2.3.4"
    assert expand_path("${KEYS}/%n", known) == "/keys/box"


def test_a_list_of_revoked_keys_whose_name_has_spaces_can_be_given_to_openssh_again(tmp_path: Path) -> None:
    trust = _trust({"revokedhostkeys": "/a b/%h revoked"}, tokens("box", "1.2.3.4", "2222", "root"))
    assert trust.revoked == "/a b/1.2.3.4 revoked"
    config = tmp_path / "config"
    config.write_text("Host box\n" + "".join(f"  {key} {value}\n" for key, value in trust.settings))
    said = subprocess.run(["ssh", "-F", str(config), "-G", "box"], capture_output=True, text=True)
    assert "revokedhostkeys /a b/%h revoked" in said.stdout.splitlines(), said.stderr
