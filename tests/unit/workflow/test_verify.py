"""Fetched files are what the manifest says, whenever they were hashed."""

import hashlib
import os

import pytest

from runner.domain.answers.manifest import Artifact
from runner.domain.errors import ChecksumMismatch
from runner.domain.progress import Silent
from runner.workflow.fetching import verify
from runner.workflow.fetching.verify import Verifier

CONTENT = b"weights " * 1000


@pytest.fixture
def staging(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "LARGE", len(CONTENT))
    return tmp_path


def arrive(staging, name="model.safetensors", content=CONTENT, whole=True):
    """A file as rsync leaves it: with the time it had on the box once it is whole. Gives what the manifest says of it."""
    (staging / name).write_bytes(content)
    if whole:
        os.utime(staging / name, (1_700_000_000, 1_700_000_000))
    return Artifact(name, len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


class Counting(Verifier):
    hashed = 0

    def _hash(self, artifact):
        self.hashed += 1
        return super()._hash(artifact)


class Recorded(Silent):
    """A stage that keeps how far it was told that the work is."""

    def __init__(self):
        self.done = []

    def update(self, done=None, total=None, note=None):
        self.done.append(done)


def finish(verifier):
    stage = Recorded()
    verifier.finish(stage)
    return stage.done


def test_a_large_file_is_hashed_once_and_early(staging):
    with Counting([arrive(staging)], staging) as verifier:
        verifier.begin_early()
        verifier.begin_early()
        assert finish(verifier) == [len(CONTENT)] and verifier.hashed == 1


def test_a_file_that_is_still_written_waits_for_the_end(staging):
    artifact = arrive(staging, whole=False)
    with Counting([artifact], staging) as verifier:
        verifier.begin_early()
        assert verifier.hashed == 0
        finish(verifier)
        assert verifier.hashed == 1


def test_a_change_after_the_early_look_is_found(staging):
    artifact = arrive(staging)
    with Verifier([artifact], staging) as verifier:
        verifier.begin_early()
        verifier._early[artifact.path].result()
        (staging / artifact.path).write_bytes(CONTENT.replace(b"w", b"W"))
        with pytest.raises(ChecksumMismatch, match="sha256 differs"):
            finish(verifier)
    assert not (staging / artifact.path).exists()


def test_an_early_look_that_differs_is_no_verdict(staging):
    artifact = arrive(staging, content=CONTENT.replace(b"w", b"W"))
    with Verifier([artifact], staging) as verifier:
        verifier.begin_early()
        verifier._early[artifact.path].result()
        arrive(staging)
        assert finish(verifier) == [len(CONTENT)]


def test_a_log_that_grew_is_cut_to_what_the_manifest_vouches_for(staging):
    artifact = arrive(staging, content=CONTENT + b"more")
    with Verifier([artifact], staging) as verifier:
        finish(verifier)
    assert (staging / artifact.path).read_bytes() == CONTENT


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT[:-1] + b"x"])
def test_what_is_not_what_was_said_is_thrown_away_and_the_rest_stays(staging, content):
    good, bad = arrive(staging, "good"), arrive(staging, "bad", content)
    with Verifier([good, bad], staging) as verifier, pytest.raises(ChecksumMismatch):
        finish(verifier)
    assert os.listdir(staging) == ["good"]


def test_a_link_in_a_files_place_is_refused(staging, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "file"
    elsewhere.write_bytes(CONTENT)
    (staging / "model").symlink_to(elsewhere)
    artifact = Artifact("model", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    with Verifier([artifact], staging) as verifier:
        verifier.begin_early()
        with pytest.raises(ChecksumMismatch, match="regular file"):
            finish(verifier)
