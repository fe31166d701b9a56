import numpy
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from remote_payload.train.evaluation.text_metrics import (
    Words,
    length_distribution,
    reference_metrics,
    vocabulary_richness,
)

OUTPUTS = ["The ship left London in the spring.", "Nobody believed it.", "the the the"]
REFERENCES = ["The ship left London in early spring.", "Nobody on the quay believed it.", "a cat"]


def test_bleu_and_rouge_are_those_of_the_reference_libraries():
    result = reference_metrics(OUTPUTS, REFERENCES)
    assert result["bleu"] == sacrebleu.corpus_bleu(OUTPUTS, [REFERENCES]).score > 10
    scorer = RougeScorer(["rougeL"])
    by_hand = [scorer.score(r, o)["rougeL"].fmeasure for o, r in zip(OUTPUTS, REFERENCES, strict=True)]
    assert result["rougeL"] == pytest.approx(sum(by_hand) / 3)
    # 5 of 7 words each way, in order: "the ship left london" + "spring", and "in"
    assert scorer.score(REFERENCES[0], OUTPUTS[0])["rougeL"].fmeasure == pytest.approx(12 / 14)
    same = reference_metrics(REFERENCES, REFERENCES)
    assert same["bleu"] == pytest.approx(100) and same["rouge1"] == 1.0


@pytest.mark.parametrize("count", [1, 2, 9, 100])
def test_lengths_agree_with_numpys_nearest_rank(count):
    lengths = [(7 * index) % 101 for index in range(count)]
    result = length_distribution(lengths)
    for name, share in (("p10", 10), ("median", 50), ("p90", 90)):
        assert result[name] == numpy.percentile(lengths, share, method="inverted_cdf")
    assert result["mean"] == pytest.approx(numpy.mean(lengths))
    assert result["deviation"] == pytest.approx(numpy.std(lengths))
    assert (result["min"], result["max"]) == (min(lengths), max(lengths))


def test_richness_of_a_text_counted_by_hand():
    result = vocabulary_richness(["The cat saw the dog.", "A cat!"])
    assert result["words"] == 7
    assert result["distinct_words"] == 5  # the, cat, saw, dog, a
    assert result["type_token_ratio"] == pytest.approx(5 / 7)
    assert result["hapax_share"] == pytest.approx(3 / 5)  # saw, dog, a
    assert result["distinct_2"] == 1.0
    assert result["moving_ratio"] == pytest.approx((4 / 5 + 1) / 2)


def test_repetition_shows_and_emptiness_does_not_break():
    assert vocabulary_richness(["again " * 200])["moving_ratio"] == pytest.approx(1 / 50)
    assert vocabulary_richness(["", "..."])["words"] == 0


@pytest.mark.parametrize(
    "text",
    [
        "Корабль вышел из Лондона весной.",
        "这艘船春天离开了伦敦。",
        "船は春にロンドンを出た。",
        "เรือออกจากลอนดอน",
        "배가 떠났다",
    ],
)
def test_a_perfect_answer_in_any_script_has_a_rouge_of_one(text):
    same = reference_metrics([text], [text])
    assert (same["rouge1"], same["rouge2"], same["rougeL"]) == (1.0, 1.0, 1.0)
    other = reference_metrics(["-"], [text])
    assert other["rouge1"] == 0.0


def test_chinese_is_compared_character_by_character():
    result = reference_metrics(["船离开伦敦"], ["船离开巴黎"])
    assert result["rouge1"] == pytest.approx(3 / 5) and result["rouge2"] == pytest.approx(2 / 4)
    assert reference_metrics(["这艘船春天离开了伦敦。"], ["这艘船春天离开了伦敦。"])["bleu"] == pytest.approx(100)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(max_codepoint=127)))
def test_words_of_plain_text_are_those_of_rouge_score(text):
    assert Words().tokenize(text) == DefaultTokenizer().tokenize(text)
