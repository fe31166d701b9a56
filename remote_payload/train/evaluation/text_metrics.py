"""Metrics of generated text: BLEU and ROUGE against references, lengths, and how varied its words are."""

from __future__ import annotations

import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

LETTERS = re.compile(r"[^\W_]+")  # of any script; rouge-score's own tokenizer keeps a to z and digits only
# Written without spaces between words: Chinese, Japanese, Thai, Lao, Burmese, Khmer. Each character counts as a word.
UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
WORD = re.compile(r"\w+(?:['’-]\w+)*")
WINDOW = 50  # words of the moving type-token ratio


def reference_metrics(outputs: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """``bleu`` (sacrebleu's corpus score, 0 to 100) and ``rouge1``, ``rouge2``, ``rougeL`` (rouge-score's F, mean over texts).

    For plain English they are those of the two libraries; docs/metrics.md says what counts as a word in other languages.
    """
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer

    kinds = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(kinds, tokenizer=Words())
    scores = [scorer.score(reference, output) for output, reference in zip(outputs, references, strict=True)]
    rouge = {kind: statistics.fmean(score[kind].fmeasure for score in scores) for kind in kinds}
    words = "zh" if any(map(HAN.search, references)) else "13a"
    return {"bleu": sacrebleu.corpus_bleu(list(outputs), [list(references)], tokenize=words).score, **rouge}


class Words:
    """A tokenizer for rouge-score that works for any script: words are runs of letters and digits, in lower case."""

    def tokenize(self, text: str) -> list[str]:
        spaced = UNSPACED.sub(r" \g<0> ", unicodedata.normalize("NFKC", text).lower())
        return LETTERS.findall(spaced)


def length_distribution(lengths: Sequence[int]) -> dict[str, float]:
    """Mean, deviation, extremes and the 10th, 50th and 90th percentile (nearest rank) of lengths in tokens."""
    ordered = sorted(lengths)

    def percentile(share: float) -> int:
        return ordered[max(0, -(-int(share * 100) * len(ordered) // 100) - 1)]

    return {
        "mean": statistics.fmean(ordered),
        "deviation": statistics.pstdev(ordered),
        "min": ordered[0],
        "p10": percentile(0.1),
        "median": percentile(0.5),
        "p90": percentile(0.9),
        "max": ordered[-1],
    }


def vocabulary_richness(texts: Sequence[str]) -> dict[str, float]:
    """How many different words the texts use, and how much they repeat themselves.

    ``type_token_ratio`` falls with length; ``moving_ratio`` is its mean over every window of 50 words of a text (Covington
    and McFall 2010, "Cutting the Gordian Knot") and can be compared; ``hapax_share`` is the share of the words used once;
    ``distinct_2`` that of different word pairs (Li et al. 2016).
    """
    words = [[word.lower() for word in WORD.findall(text)] for text in texts]
    counts = Counter(word for text in words for word in text)
    pairs = Counter(pair for text in words for pair in pairwise(text))
    total = counts.total()
    return {
        "words": total,
        "distinct_words": len(counts),
        "type_token_ratio": len(counts) / total if total else 0.0,
        "moving_ratio": _moving_ratio(words),
        "hapax_share": sum(count == 1 for count in counts.values()) / len(counts) if counts else 0.0,
        "distinct_2": len(pairs) / pairs.total() if pairs else 0.0,
    }


def _moving_ratio(texts: Sequence[Sequence[str]]) -> float:
    ratios = []
    for words in texts:
        size = min(WINDOW, len(words))
        ratios += [len(set(words[start : start + size])) / size for start in range(len(words) - size + 1) if size]
    return statistics.fmean(ratios) if ratios else 0.0
