"""Files and folders that appear when they are complete."""

import os
import threading
from pathlib import Path

import pytest

from remote_payload.agent.box.files import new_folder, read_json, write_json, write_whole


def test_a_reader_sees_the_old_content_or_the_new_one(tmp_path):
    path, wrong, over = str(tmp_path / "f.json"), [], threading.Event()
    contents = [{"text": letter * 100_000} for letter in "ab"]
    write_json(path, contents[0])

    def read():
        while not over.is_set():
            if read_json(path) not in contents:
                wrong.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    writers = [
        threading.Thread(target=lambda each=each: [write_json(path, each) for _ in range(30)]) for each in contents
    ]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    over.set()
    reader.join()
    assert not wrong and os.listdir(tmp_path) == ["f.json"] and os.stat(path).st_mode & 0o777 == 0o600


def test_an_empty_folder_in_the_place_of_a_file_is_replaced_and_a_full_one_is_not(tmp_path):
    place = tmp_path / "f"
    place.mkdir()
    write_whole(str(place), b"x")
    assert place.read_bytes() == b"x"
    place.unlink()
    place.mkdir()
    (place / "kept").touch()
    with pytest.raises(OSError, match="not empty"):
        write_whole(str(place), b"x")
    assert os.listdir(tmp_path) == ["f"] and (place / "kept").exists()


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    place = tmp_path / "f"
    place.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_whole(str(place), b"new")
    assert place.read_bytes() == b"old" and os.listdir(tmp_path) == ["f"]


def test_a_folder_has_its_name_once_the_block_is_over_and_never_where_it_failed(tmp_path):
    with new_folder(str(tmp_path / "good")) as folder:
        Path(folder, "a").touch()
        assert not (tmp_path / "good").exists()
    with pytest.raises(ValueError, match="stop"), new_folder(str(tmp_path / "bad")) as folder:
        Path(folder, "a").touch()
        raise ValueError("stop")
    assert os.listdir(tmp_path) == ["good"] and os.listdir(tmp_path / "good") == ["a"]
