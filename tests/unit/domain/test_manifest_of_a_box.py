"""runner/domain/answers/manifest.py: a list of files from a box that may lie."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.domain.answers.manifest import parse_manifest
from runner.domain.answers.reading import Impossible
from runner.domain.errors import ArtifactError

SHA = "0" * 64


def entry(path: object, size: object = 1, sha256: object = SHA) -> dict[str, object]:
    return {"path": path, "size": size, "sha256": sha256, "mtime": 0}


def test_a_plain_list_is_taken() -> None:
    manifest = parse_manifest(
        {"complete": True, "files": [entry("models/best/adapter.safetensors", 7), entry("log é.txt", 5)]}
    )
    assert manifest.complete and manifest.size == 12


@pytest.mark.parametrize(
    "path",
    [
        "../out", "/etc/passwd", "a/../../b", "a//b", "", ".", "a/.", "-rf", "a\nb", "a\x1b[2Jb", "a\\b", "x/.git/config", ".ssh/id",
        "a/\u202eb", "a" * 2000, "d/" + "\u00e9" * 128, "\udcff", None, 7, ["a"],
    ],
)  # fmt: skip
def test_a_name_that_leaves_its_folder_or_poses_as_another_is_refused(path: object) -> None:
    with pytest.raises(ArtifactError) as caught:
        parse_manifest({"files": [entry(path)]})
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize("size", [-1, 1.5, "1", None, True, 1 << 60])
def test_an_absurd_size_is_refused(size: object) -> None:
    with pytest.raises(ArtifactError):
        parse_manifest({"files": [entry("a", size)]})


@pytest.mark.parametrize("sha256", [None, "", "Z" * 64, "0" * 63])
def test_a_file_without_a_checksum_is_refused(sha256: object) -> None:
    with pytest.raises(ArtifactError):
        parse_manifest({"files": [entry("a", 1, sha256)]})


@pytest.mark.parametrize(
    "names", [("Model", "model"), ("caf\u00e9", "cafe\u0301"), ("a", "a/b"), ("A", "a/b"), ("a", "a")]
)
def test_two_names_that_a_mac_takes_for_one_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(ArtifactError):
        parse_manifest({"files": [entry(name) for name in names]})


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_anything_else_is_refused_with_a_sentence(answer: object) -> None:
    try:
        parse_manifest(answer if isinstance(answer, dict) else {"files": answer})
    except Impossible as error:
        assert str(error)
    except ArtifactError as error:
        assert error.exit_code == 6
