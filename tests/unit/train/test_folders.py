from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from remote_payload.train.folders import complete_folder, folder_lock, read_manifest, recover_folder
from tests.support.box import small_disk


def fill(folder: Path, text: str) -> None:
    with complete_folder(folder, step=1) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").write_text(text)


def test_a_folder_appears_with_its_manifest_when_it_is_complete(tmp_path: Path) -> None:
    with complete_folder(tmp_path / "best", step=7) as temporary:
        (temporary / "file").write_text("abc")
        assert not (tmp_path / "best").exists()
    manifest = read_manifest(tmp_path / "best", hashes=True)
    assert manifest is not None
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    written = (tmp_path / "best" / "file").stat().st_mtime_ns
    assert manifest["step"] == 7
    assert manifest["files"] == [{"path": "file", "size": 3, "sha256": abc, "mtime_ns": written}]


def test_a_failure_leaves_the_previous_folder_and_nothing_else(tmp_path: Path) -> None:
    fill(tmp_path / "best", "first")
    with pytest.raises(RuntimeError), complete_folder(tmp_path / "best") as temporary:
        (temporary / "file").write_text("half")
        raise RuntimeError
    assert (tmp_path / "best" / "inner" / "file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_replacing_leaves_only_the_new_one(tmp_path: Path) -> None:
    fill(tmp_path / "best", "first")
    fill(tmp_path / "best", "second")
    assert (tmp_path / "best" / "inner" / "file").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_replacement_cut_between_its_two_renames_is_undone(tmp_path: Path) -> None:
    fill(tmp_path / "best", "first")
    (tmp_path / "best").rename(tmp_path / ".old-best")
    (tmp_path / ".tmp-best").mkdir()
    recover_folder(tmp_path / "best")
    assert (tmp_path / "best" / "inner" / "file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_replacement_that_was_finished_stays(tmp_path: Path) -> None:
    fill(tmp_path / "best", "second")
    fill(tmp_path / ".old-best", "first")
    recover_folder(tmp_path / "best")
    assert (tmp_path / "best" / "inner" / "file").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


@pytest.mark.parametrize("damage", ["no manifest", "a torn manifest", "a file gone", "a file cut", "a byte changed"])
def test_a_damaged_folder_has_no_manifest(damage: str, tmp_path: Path) -> None:
    fill(tmp_path / "best", "content")
    file, manifest = tmp_path / "best/inner/file", tmp_path / "best/manifest.json"
    match damage:
        case "no manifest":
            manifest.unlink()
        case "a torn manifest":
            manifest.write_text(manifest.read_text()[:40])
        case "a file gone":
            file.unlink()
        case "a file cut":
            file.write_text("conten")
        case "a byte changed":
            file.write_text("Content")
    assert read_manifest(tmp_path / "best", hashes=True) is None
    assert (read_manifest(tmp_path / "best") is None) == (damage != "a byte changed"), "sizes alone do not see it"


def test_the_second_process_that_wants_a_folder_waits_and_finds_it_made(tmp_path: Path) -> None:
    said: list[str] = []
    found: list[bool] = []

    def second() -> None:
        with folder_lock(tmp_path / "rows", said.append):
            found.append((tmp_path / "rows").is_dir())

    thread = threading.Thread(target=second)
    with folder_lock(tmp_path / "rows", said.append):
        thread.start()
        deadline = time.monotonic() + 30
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
        fill(tmp_path / "rows", "made")
    thread.join(30)
    assert said == [f"waiting for another run that is making {tmp_path / 'rows'}"]
    assert found == [True]


def test_an_error_about_tensors_is_not_taken_for_one_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(SafetensorError), complete_folder(tmp_path / "best"):
        raise SafetensorError("Error while serializing: invalid header")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_os_error_whoever_writes(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=64k") as disk:
        fill(disk / "best", "first")
        with pytest.raises(OSError, match="No space left on device") as full, complete_folder(disk / "best") as folder:
            save_file({"weight": torch.zeros(100_000)}, folder / "model.safetensors")
        assert full.value.errno == errno.ENOSPC
        assert (disk / "best" / "inner" / "file").read_text() == "first"
        assert [path.name for path in disk.iterdir()] == ["best"]
