"""Pre-tokenised rows: what they hold, when they are used again, and why not when they are not."""

import multiprocessing
import re
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from remote_payload.train.data import tokens
from remote_payload.train.data.facts import describe_files
from remote_payload.train.data.tokenizer import train_tokenizer
from remote_payload.train.data.tokens import Source, prepare_tokens
from remote_payload.train.errors import InputError

SENTENCES = [
    f"In the year {year} the mayor of London walked to the river and counted the ships.\n\n" for year in range(400)
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(iter(SENTENCES), 400, 32)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "a.txt").write_text("".join(SENTENCES[:300]))
    (tmp_path / "b.txt").write_text("".join(SENTENCES[300:]))
    return Source(
        describe_files([str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]), max_length=32, validation_share=0.2
    )


@pytest.fixture
def said():
    return []


def test_the_rows_are_the_documents_with_the_end_token_between_them(tmp_path, tokenizer, source):
    made = prepare_tokens(tmp_path / "tokens", tokenizer, replace(source, validation_share=0.5), say=lambda text: None)
    ids = np.concatenate([made.train.ravel(), made.validation.ravel()]).tolist()
    documents = [document.strip() for document in tokenizer.decode(ids).split(tokenizer.eos_token)]
    expected = {sentence.strip() for sentence in SENTENCES}
    unbroken = [document for document in documents if document in expected]
    assert len(unbroken) >= len(SENTENCES) - 3  # cut: the ends of both parts, and the one across the border
    assert len(set(unbroken)) == len(unbroken)
    assert made.documents == len(SENTENCES)
    assert made.train.dtype == np.uint16


def test_a_large_vocabulary_takes_four_bytes_a_token(tmp_path, tokenizer, source, monkeypatch):
    monkeypatch.setattr(type(tokenizer), "__len__", lambda self: 70_000)
    made = prepare_tokens(tmp_path / "tokens", tokenizer, source, say=lambda text: None)
    assert made.train.dtype == np.uint32
    assert made.train.max() < 400


def test_the_second_time_they_are_only_opened(tmp_path, tokenizer, source, said, monkeypatch):
    first = prepare_tokens(tmp_path / "tokens", tokenizer, source, say=said.append)
    assert first.how == "fresh"
    assert said == [f"tokenising 2 file(s), 0.0 MB: there is no pre-tokenised data in {tmp_path / 'tokens'}"]
    monkeypatch.setattr(tokens, "_make", None)
    for mode in ("auto", "cached"):
        again = prepare_tokens(tmp_path / "tokens", tokenizer, source, mode, say=said.append)
        assert again.how == "cached"
        assert isinstance(again.train, np.memmap)
        assert np.array_equal(again.train, first.train) and np.array_equal(again.validation, first.validation)


def test_fresh_makes_them_anew_whatever_is_there(tmp_path, tokenizer, source):
    prepare_tokens(tmp_path / "tokens", tokenizer, source, say=lambda text: None)
    assert prepare_tokens(tmp_path / "tokens", tokenizer, source, "fresh", say=lambda text: None).how == "fresh"


def add_a_file(source, folder):
    (folder / "c.txt").write_text("new\n" * 100)
    return replace(source, corpus=describe_files([*source.files, str(folder / "c.txt")]))


def change_a_file(source, folder):
    path = folder / "b.txt"
    path.write_text(path.read_text().replace("London", "Londan"))  # the same length
    return replace(source, corpus=describe_files(source.files))


def cut_the_rows_off(source, folder):
    with open(folder / "tokens" / "train.bin", "r+b") as file:
        file.truncate(100)
    return source


def garble_the_metadata(source, folder):
    (folder / "tokens" / "metadata.json").write_text("{")
    return source


def age_the_format(source, folder):
    path = folder / "tokens" / "metadata.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 0'))
    return source


STALE = {
    "max_length was 32 in .* and is 16 now": lambda source, folder: replace(source, max_length=16),
    "validation_share was 0.2 in .* and is 0.3 now": lambda source, folder: replace(source, validation_share=0.3),
    "boundary was paragraph in .* and is line now": lambda source, folder: replace(source, boundary="line"),
    r"the corpus has a new file, .*c\.txt": add_a_file,
    r"the corpus no longer has .*b\.txt": lambda source, folder: replace(source, corpus=source.corpus[:1]),
    r"b\.txt has changed": change_a_file,
    "is not complete": cut_the_rows_off,
    "metadata.json cannot be read": garble_the_metadata,
    "another format": age_the_format,
}


@pytest.mark.parametrize("reason", STALE)
def test_when_they_no_longer_fit_the_reason_is_said_and_they_are_made_anew(tmp_path, tokenizer, source, said, reason):
    prepare_tokens(tmp_path / "tokens", tokenizer, source, say=lambda text: None)
    changed = STALE[reason](source, tmp_path)
    with pytest.raises(InputError, match=f"settings.tokens is cached, but .*{reason}"):
        prepare_tokens(tmp_path / "tokens", tokenizer, changed, "cached")
    made = prepare_tokens(tmp_path / "tokens", tokenizer, changed, say=said.append)
    assert made.how == "fresh"
    assert re.search(reason, said[0]) and re.search(reason, made.reason)
    assert prepare_tokens(tmp_path / "tokens", tokenizer, changed).how == "cached"


def test_another_tokenizer_makes_them_stale(tmp_path, tokenizer, source, said):
    prepare_tokens(tmp_path / "tokens", tokenizer, source, say=lambda text: None)
    other = train_tokenizer(iter(SENTENCES), 300, 32)
    assert prepare_tokens(tmp_path / "tokens", other, source, say=said.append).how == "fresh"
    assert "the tokenizer is another one" in said[0]


def test_a_corpus_too_small_says_which_setting_to_change(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text("short\n")
    with pytest.raises(InputError, match=r"settings\.corpus: \d+ tokens do not fill one row of max_length 32"):
        prepare_tokens(
            tmp_path / "tokens", tokenizer, Source(describe_files([str(tmp_path / "a.txt")]), 32), say=lambda text: None
        )
    assert not (tmp_path / "tokens").exists()


def test_a_validation_share_too_small_says_so(tmp_path, tokenizer, source):
    with pytest.raises(InputError, match=r"settings\.validation_share: 0 tokens held out"):
        prepare_tokens(tmp_path / "tokens", tokenizer, replace(source, validation_share=0.0), say=lambda text: None)


def test_memory_does_not_grow_with_the_corpus(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(tokens, "BATCH", 1 << 15)

    def peak(times):
        (tmp_path / "big.txt").write_text("".join(SENTENCES) * times)
        source = Source(describe_files([str(tmp_path / "big.txt")]), 32, validation_share=0.2)
        tracemalloc.start()
        prepare_tokens(tmp_path / f"tokens-{times}", tokenizer, source, say=lambda text: None)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(2)  # imports and caches
    assert peak(160) < 1.2 * peak(80)


def _prepare_in_a_process(folder, tokenizer, source, results):
    results.put(prepare_tokens(folder, tokenizer, source, say=lambda text: None).how)


def test_two_runs_at_once_make_them_once(tmp_path, tokenizer, source):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    arguments = (tmp_path / "tokens", tokenizer, source, results)
    processes = [context.Process(target=_prepare_in_a_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert sorted(results.get(timeout=5) for _ in processes) == ["cached", "fresh"]


def test_what_an_interrupted_run_left_is_not_used(tmp_path, tokenizer, source, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tokens, "_joined", fail)
    with pytest.raises(OSError, match="No space"):
        prepare_tokens(tmp_path / "tokens", tokenizer, source, say=lambda text: None)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_rows_of_the_right_size_with_a_wrong_byte_are_not_used_again(tmp_path, tokenizer, source, said):
    folder = tmp_path / "tokens"
    first = np.array(prepare_tokens(folder, tokenizer, source, say=said.append).train)
    for name in ("train.bin", "validation.bin", "metadata.json"):
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
        with pytest.raises(InputError, match=r"settings\.tokens is cached, but "):
            prepare_tokens(folder, tokenizer, source, "cached", say=said.append)
        again = prepare_tokens(folder, tokenizer, source, say=said.append)
        assert again.how == "fresh" and np.array_equal(again.train, first)
        assert name == "metadata.json" or "its sha256 differs" in again.reason


def test_what_another_rank_has_just_checked_is_not_read_twice(tmp_path, tokenizer, source, monkeypatch):
    prepare_tokens(tmp_path / "tokens", tokenizer, source, say=lambda text: None)
    monkeypatch.setattr("remote_payload.train.folders.sha256_of", None)
    assert prepare_tokens(tmp_path / "tokens", tokenizer, source, "cached", checked=True).how == "cached"


def test_a_special_token_that_is_spelt_out_in_the_corpus_is_text(tmp_path, tokenizer):
    text = "before <|endoftext|> between <|pad|> after " * 20
    (tmp_path / "a.txt").write_text("\n\n".join([text] * 8))
    source = Source(describe_files([str(tmp_path / "a.txt")]), max_length=32, validation_share=0.4)
    made = prepare_tokens(tmp_path / "tokens", tokenizer, source, say=lambda text: None)
    ids = np.concatenate([made.train.ravel(), made.validation.ravel()])
    assert (ids == tokenizer.eos_token_id).sum() <= made.documents
    assert tokenizer.pad_token_id not in ids
    assert "between <|pad|> after" in tokenizer.decode(made.train[0].tolist() + made.train[1].tolist())
    assert tokenizer("<|pad|>")["input_ids"] == [tokenizer.pad_token_id]  # the tokenizer itself is as it was
