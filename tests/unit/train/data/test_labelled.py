from __future__ import annotations

from pathlib import Path

import pytest

from remote_payload.settings.classify import ClassifySettings
from remote_payload.train.data.labelled import read_labelled_texts
from remote_payload.train.errors import InputError

GOOD = '{"text": "a ship", "label": "legal"}\n{"text": "a quay", "label": "other"}\n'


@pytest.mark.parametrize("content", ["", "\n\n  \n"])
@pytest.mark.parametrize("group", [None, "source"])
def test_a_file_without_examples_is_named_as_that_and_not_as_a_trouble_of_the_split(
    tmp_path: Path, content: str, group: str | None
) -> None:
    (tmp_path / "train.jsonl").write_text(content)
    settings = ClassifySettings(model="m", train=str(tmp_path / "train.jsonl"), group_field=group)
    with pytest.raises(InputError, match=r"settings\.train: '.*train\.jsonl' holds no examples"):
        read_labelled_texts(settings)


def test_an_empty_file_beside_others_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(GOOD * 5)
    (tmp_path / "b.jsonl").write_text("")
    found = read_labelled_texts(ClassifySettings(model="m", train=str(tmp_path)))
    assert len(found.train) + len(found.validation) == 10 and [file.rows for file in found.files] == [10, 0]
