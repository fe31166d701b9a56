"""runner/files.py: a file is the old one or the new one, whoever writes it at the same time."""

import threading
from pathlib import Path

import pytest

from runner import files


def test_two_threads_that_replace_one_file_leave_one_of_their_texts_and_nothing_else(tmp_path: Path) -> None:
    file, failed = tmp_path / "ssh.config", []

    def write(text: str) -> None:
        try:
            for _ in range(50):
                files.write_text(file, text)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(letter * 9999,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert set(file.read_text()) in ({"a"}, {"b"}) and [entry.name for entry in tmp_path.iterdir()] == ["ssh.config"]


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    files.write_json(file, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(file, {"a": object()})
    assert files.read_json(file) == {"a": 1} and [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_the_lock_of_a_file_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with files.file_lock(tmp_path / "fetch"), files.file_lock_if_free(tmp_path / "fetch") as alone:
        assert not alone
    with files.file_lock_if_free(tmp_path / "fetch") as alone:
        assert alone
