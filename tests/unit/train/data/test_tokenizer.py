"""A tokenizer trained from a corpus loses nothing of a text and comes back from its folder the same."""

import pytest

from remote_payload.train.data.facts import describe_files
from remote_payload.train.data.tokenizer import (
    END,
    PAD,
    load_tokenizer,
    prepare_tokenizer,
    tokenizer_hash,
    train_tokenizer,
)
from remote_payload.train.errors import InputError

TEXT = "In the year 1834, I walked through the streets of London. The streets of London were wet.\n"


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer((TEXT for _ in range(50)), 320, 64)


def test_any_text_survives_encoding_and_decoding(tokenizer):
    for text in (TEXT, "£9 — naïve 日本 🙂\t\r\n", " leading and trailing "):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_vocabulary_is_no_larger_than_asked_for_and_learns_from_the_text(tokenizer):
    assert 258 < len(tokenizer) <= 320
    assert len(tokenizer(TEXT)["input_ids"]) < len(TEXT) / 2


def test_end_and_padding_are_two_tokens(tokenizer):
    assert tokenizer.eos_token == tokenizer.bos_token == END
    assert tokenizer.pad_token == PAD
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    assert tokenizer.model_max_length == 64


def test_the_same_text_gives_the_same_tokenizer(tokenizer):
    assert tokenizer_hash(tokenizer) == tokenizer_hash(train_tokenizer((TEXT for _ in range(50)), 320, 64))
    assert tokenizer_hash(tokenizer) != tokenizer_hash(train_tokenizer((TEXT for _ in range(50)), 300, 64))


def test_it_comes_back_from_its_folder_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert tokenizer_hash(again) == tokenizer_hash(tokenizer)
    assert again(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]
    assert (again.eos_token_id, again.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)


def test_its_hash_does_not_change_with_use(tokenizer):
    before = tokenizer_hash(tokenizer)
    tokenizer([TEXT, "short"], padding=True, truncation=True, max_length=5)
    assert tokenizer_hash(tokenizer) == before


def test_it_is_trained_once_for_a_corpus_and_anew_when_that_changes(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text(TEXT * 50)
    said = []

    def prepare(vocabulary=320, **options):
        return prepare_tokenizer(
            tmp_path / "tokenizer", describe_files([str(file)]), vocabulary, 64, say=said.append, **options
        )

    first = prepare()
    assert tokenizer_hash(prepare()) == tokenizer_hash(first)
    assert said == [
        f"training a tokenizer of 320 tokens from 0.0 MB: there is no tokenizer in {tmp_path / 'tokenizer'}"
    ]
    assert len(prepare(vocabulary=300)) <= 300
    file.write_text(TEXT.upper() * 50)
    assert tokenizer_hash(prepare()) != tokenizer_hash(first)
    assert len(said) == 3
    assert "was made from another vocabulary and corpus" in said[2]
    prepare(mode="fresh")
    assert len(said) == 4
    prepare(mode="cached")
    with pytest.raises(InputError, match=r"settings\.tokens is cached, but the tokenizer in .* another vocabulary"):
        prepare(vocabulary=310, mode="cached")
