"""Texts are tokenised many at once, on all cores: the ids are those of each text by itself, and memory is bounded."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from remote_payload.settings.preference import PreferenceSettings
from remote_payload.train.data import chat, labelled
from remote_payload.train.data.batching import batches_of
from remote_payload.train.data.chat import Format, encode_all, encode_examples
from remote_payload.train.data.labelled import Example, tokenise
from remote_payload.train.data.records import Record
from remote_payload.train.data.structured import Example as Fact
from remote_payload.train.evaluation import evaluation_sets
from remote_payload.train.tasks import preferences
from tests.support.models.recipe_process import environment
from tests.support.models.tiny_models import CORPUS, tiny_tokenizer

WORDS = [*" ".join(CORPUS).split(), "\n", "  ", "é", "日本", "🙂", "<|im_end|>", "<|pad|>", "\t", "e\u0301", ""]
PAIRS = Format(prompt_template="Q: {prompt}\nA:", completion_field="answer")


@pytest.fixture
def draw() -> random.Random:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")  # pytest shows it when a test fails
    return random.Random(seed)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (chat, labelled, evaluation_sets):
        monkeypatch.setattr(module, "AT_ONCE", 300)


def text(draw: random.Random, most: int = 12) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, most)))


def conversation(draw: random.Random) -> list[dict[str, str]]:
    turns = [{"role": role, "content": text(draw)} for _ in range(draw.randint(1, 3)) for role in ("user", "assistant")]
    return [*([{"role": "system", "content": text(draw)}] if draw.random() < 0.3 else []), *turns]


def test_conversations_have_the_ids_of_each_by_itself(draw: random.Random) -> None:
    tokenizer = tiny_tokenizer()
    records = [Record({"messages": conversation(draw)}, "chat.jsonl", line) for line in range(60)]
    together, _ = encode_examples(records, tokenizer, Format(), 4096)
    for record, example in zip(records, together, strict=True):
        written = tokenizer.apply_chat_template(record.value["messages"], tokenize=False)
        assert example.document.ids == tokenizer(written, add_special_tokens=False)["input_ids"]
        assert [example] == list(encode_all([record], tokenizer, Format()))


def test_completions_have_the_ids_of_each_prompt_and_each_answer_by_itself(draw: random.Random) -> None:
    tokenizer = tiny_tokenizer(chat=False)
    records = [Record({"prompt": text(draw), "answer": text(draw)}, "pairs.jsonl", line) for line in range(60)]
    for record, example in zip(records, encode_examples(records, tokenizer, PAIRS, 4096)[0], strict=True):
        prompt = tokenizer(f"Q: {record.value['prompt']}\nA:")["input_ids"]
        answer = tokenizer(record.value["answer"], add_special_tokens=False)["input_ids"]
        assert example.document.ids == [*prompt, *answer, tokenizer.eos_token_id]
        assert example.document.learn == [False] * len(prompt) + [True] * (len(answer) + 1)


def test_pairs_questions_and_texts_with_labels_too(draw: random.Random) -> None:
    tokenizer = tiny_tokenizer()
    values = [{"prompt": text(draw), "chosen": text(draw) + " yes", "rejected": text(draw) + " no"} for _ in range(40)]
    records = [Record(value, "pairs.jsonl", line) for line, value in enumerate(values)]
    settings = PreferenceSettings(model="m", adapter="a", train="t", max_length=4096)
    pairs, left_out = preferences.encode_pairs(records, tokenizer, Format(), settings)
    assert not left_out
    for value, pair in zip(values, pairs, strict=True):
        for name, document in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            turns = [{"role": "user", "content": value["prompt"]}, {"role": "assistant", "content": value[name]}]
            written = tokenizer.apply_chat_template(turns, tokenize=False)
            assert document.ids == tokenizer(written, add_special_tokens=False)["input_ids"]
    facts = [Fact(text(draw), text(draw)) for _ in range(40)]
    for fact, document in zip(facts, evaluation_sets.encode(facts, tokenizer, 4096, ending=True), strict=True):
        parts = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in (fact.prompt, fact.completion)]
        assert document.ids == [*parts[0], *parts[1], tokenizer.eos_token_id]
    examples = [Example(text(draw, 40), draw.randrange(3)) for _ in range(40)]
    found = tokenise(examples, tokenizer, 20)
    alone = [tokenizer(example.text)["input_ids"] for example in examples]
    assert found.ids == [ids[:20] for ids in alone] and found.labels == [example.label for example in examples]
    assert found.truncated == sum(len(ids) > 20 for ids in alone)


def test_a_batch_ends_with_the_item_that_fills_it(draw: random.Random) -> None:
    for _ in range(200):
        sizes, limit = [draw.randint(0, 9) for _ in range(draw.randint(0, 30))], draw.randint(1, 20)
        batches = list(batches_of(sizes, lambda size: size, limit))
        assert [size for batch in batches for size in batch] == sizes
        assert all(sum(batch) >= limit for batch in batches[:-1])
        assert all(sum(batch[:-1]) < limit for batch in batches)


def test_a_long_tokenisation_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [Record({"prompt": "a", "answer": "b"}, "pairs.jsonl", line) for line in range(4)]
    said: list[str] = []
    monkeypatch.setattr(chat.time, "monotonic", iter([0.0, 4.0, 11.0, 11.0, 12.0, 30.0, 30.0]).__next__)
    encode_examples(records, tiny_tokenizer(chat=False), PAIRS, 64, said.append)
    assert said == ["tokenising: 1 of 4 records", "tokenising: 3 of 4 records"]


RECIPE = """
import os, sys
from dataclasses import dataclass
from remote_payload.settings.sft import METRICS, SftSettings
from transformers import AutoTokenizer

@dataclass
class Settings(SftSettings):
    pass

def main(run):
    tokenizer, texts = AutoTokenizer.from_pretrained("tokenizer"), ["The ship left London in spring."] * 500
    before = len(os.listdir("/proc/self/task"))
    tokenizer(texts)
    print("threads", len(os.listdir("/proc/self/task")) - before, flush=True)
    child = os.fork()  # as the worker of a data loader
    if not child:
        tokenizer(texts)
        os._exit(0)
    print("child", os.waitpid(child, 0)[1], flush=True)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc")
def test_a_run_uses_all_cores_and_a_process_that_it_forks_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / "recipe.py").write_text(RECIPE)
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    settings = {"model": "m", "train": "t"}
    (tmp_path / "job.json").write_text(json.dumps({"name": "cores", "recipe": "./recipe.py", "settings": settings}))
    given = {**environment(tmp_path), "RAYON_NUM_THREADS": "3"}
    given.pop("TOKENIZERS_PARALLELISM", None)  # the box does not set it; whoever runs these tests may
    done = subprocess.run(
        [sys.executable, "-m", "remote_payload.recipes.own"],
        cwd=tmp_path, env=given, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "threads 3\n" in done.stdout and "child 0\n" in done.stdout
