"""Whatever a data file holds, reading it gives records that can be trained on, or one InputError that names the file (and the line).

A trial writes a file of one of the kinds that recipes read, good lines among random junk, breaks some of its bytes, and takes it the
way of its recipe as far as tokens. Answers of a model, schemas and pre-tokenised rows go the same way: any text, any value, any wrong
byte is either read for what it is or refused, and never taken for something else.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from remote_payload.settings.classify import ClassifySettings
from remote_payload.train.data.chat import Format, encode_examples
from remote_payload.train.data.corpus import corpus_files
from remote_payload.train.data.facts import describe_files
from remote_payload.train.data.labelled import read_labelled_texts, tokenise
from remote_payload.train.data.records import read_all
from remote_payload.train.data.structured import read_structured
from remote_payload.train.data.tokens import Source, prepare_tokens
from remote_payload.train.errors import InputError
from remote_payload.train.evaluation.json_answers import NOTHING
from remote_payload.train.evaluation.json_metrics import json_metrics, read_answer
from remote_payload.train.evaluation.json_schemas import check_schema, complies
from remote_payload.train.tasks.preferences import encode_pairs
from tests.support.models.tiny_models import CHAT_TEMPLATE, TOOL_TEMPLATE, tiny_tokenizer
from tests.support.trials import trials

WORDS = [
    "ship",
    "London",
    "é",
    "船",
    "<|pad|>",
    "<|im_end|>",
    "{",
    "}",
    "\\",
    '"',
    "\u2028",
    "\x00",
    "",
    "  ",
    "'",
    "7",
    "😀",
]
HOSTILE = ["\ud800", "tail \udfff"]
NOISE = [*"{}[]:,1a -", '"', "NaN", "9" * 4400, "\\u", "\ud800", "<think>", "</think>", "null"]
REFERENCES = ["#", "#/$defs/a", "#/$defs/b", "#/nowhere", "other.json"]
SEEN: Counter[str] = Counter()


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def with_a_template(chance: random.Random, tokenizer: Any, story: Story) -> Any:
    """Of a model that knows tools, of one that closes no answer, or of one that knows no tools."""
    tokenizer.chat_template = chance.choice(
        [
            TOOL_TEMPLATE,
            TOOL_TEMPLATE.replace("<|im_end|>", ""),
            CHAT_TEMPLATE.replace("message['content']", "message.content"),
        ]
    )
    story(tokenizer.chat_template)
    return tokenizer


class Story:
    """What a trial did, for its failure's message."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def __call__(self, text: str) -> None:
        self.done.append(text[:500])


def text(chance: random.Random) -> str:
    words = [chance.choice(WORDS) for _ in range(chance.randint(0, 12))]
    return " ".join([*words, chance.choice(HOSTILE)] if chance.random() < 0.02 else words)


def junk(chance: random.Random, depth: int = 3) -> Any:
    """Any JSON value, and some that only Python writes."""
    kind = chance.randint(0, 9 if depth else 6)
    if kind < 7:
        numbers = [0, -1, 2**70, 1.5, 1e300, float("nan"), float("inf")]
        return chance.choice([None, True, False, text(chance), text(chance), chance.choice(numbers)])
    size = range(chance.randint(0, 3))
    if kind == 7:
        return [junk(chance, depth - 1) for _ in size]
    return {chance.choice(["a", "role", "content", "name", text(chance)]): junk(chance, depth - 1) for _ in size}


def spoilt(chance: random.Random, value: dict[str, Any]) -> dict[str, Any]:
    """A record with junk for one of its fields, or without it."""
    name = chance.choice(list(value))
    rest = {key: item for key, item in value.items() if key != name}
    return rest if chance.random() < 0.3 else {**rest, name: junk(chance)}


def a_file(chance: random.Random, path: Path, records: list[Any], story: Story) -> Path:
    """The records as JSON Lines or as an array, perhaps with broken bytes, blank lines or a byte order mark."""
    lines = [
        json.dumps(record, ensure_ascii=chance.random() < 0.8 or "\\ud" in json.dumps(record)) for record in records
    ]
    if lines and chance.random() < 0.1:
        at = chance.randrange(len(lines))
        lines[at] = lines[at].replace("{", '{"n": ' + "9" * 5000 + ", ", 1)
        story(f"a number of 5,000 digits in record {at + 1}")
    as_array = path.suffix == ".json"
    content = ("[" + ",\n".join(lines) + "]" if as_array else "\n".join(lines)).encode("utf-8", "surrogatepass")
    for _ in range(chance.choice([0, 0, 0, 0, 1, 2])):
        at = chance.randrange(len(content) + 1)
        harm = chance.choice(
            [b"\xff", b"\x00", b"\n", b'"', b"\\", b"9" * 5000, b"[" * 3000, b"NaN", b"\xef\xbb\xbf", b"}"]
        )
        content = content[:at] + harm + content[at + chance.choice([0, 0, 1, 40]) :]
        story(f"{harm[:8]!r}… put at byte {at}")
    path.write_bytes(content)
    story(f"{path.name}: {content[:300]!r}")
    return path


def conversation(chance: random.Random) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": text(chance)}]
    for _ in range(chance.randint(1, 3)):
        call = {"name": "f", "arguments": chance.choice([{}, {"a": 1}, '{"b": "x"}'])}
        if chance.random() < 0.4:
            messages.append(
                {"role": "assistant", "content": chance.choice([None, "", text(chance)]), "tool_calls": [call]}
            )
            messages.append({"role": "tool", "content": "result"})
        messages += [{"role": "assistant", "content": text(chance)}, {"role": "user", "content": text(chance)}]
    more = {"tools": [{"type": "function", "function": {"name": "f"}}]} if chance.random() < 0.5 else {}
    return {"messages": messages[: chance.randint(2, len(messages))], **more}


def chat_file(chance, folder, tokenizer, story):
    good = [conversation(chance) for _ in range(chance.randint(1, 6))]
    rows = [spoilt(chance, row) if chance.random() < 0.15 else row for row in good]
    path = a_file(chance, folder / chance.choice(["chat.jsonl", "chat.json"]), rows, story)
    records, _ = read_all([str(path)])
    examples, report = encode_examples(records, with_a_template(chance, tokenizer, story), Format(), 4096)
    for example in examples:
        said = [token for token, learnt in zip(example.document.ids, example.document.learn, strict=True) if learnt]
        assert said[-1] == tokenizer.eos_token_id, "an answer that does not end"
        for message in example.record.value["messages"]:
            for call in message.get("tool_calls") or [] if message["role"] == "assistant" else []:
                assert call.get("function", call)["name"] in tokenizer.decode(said), "a tool call that is not learnt"
    assert report.examples == len(examples)
    return "chat read"


def labelled_file(chance, folder, tokenizer, story):
    rows = [
        {"text": text(chance) or "x", "label": chance.choice(["legal", "other"])} for _ in range(chance.randint(0, 9))
    ]
    rows = [spoilt(chance, row) if chance.random() < 0.1 else row for row in rows]
    path = a_file(chance, folder / "labels.jsonl", rows, story)
    settings = ClassifySettings(model="m", train=str(path), validation_share=0.3)
    found = read_labelled_texts(settings)
    assert len(found.train) + len(found.validation) <= len(path.read_bytes().split(b"\n"))
    tokenise([*found.train, *found.validation], tokenizer, 32)
    return "labels read"


def pair_file(chance, folder, tokenizer, story):
    rows = [{"prompt": text(chance), "chosen": text(chance) + "1", "rejected": text(chance) + "2"} for _ in range(3)]
    rows = [spoilt(chance, row) if chance.random() < 0.2 else row for row in rows]
    path = a_file(chance, folder / "pairs.jsonl", rows, story)
    fields = {"prompt_field": "prompt", "chosen_field": "chosen", "rejected_field": "rejected", "max_length": 2048}
    form = chance.choice([Format(), Format(prompt_template="Q: {prompt}\nA:")])
    with_a_template(chance, tokenizer, story)
    pairs, _ = encode_pairs(read_all([str(path)])[0], tokenizer, form, SimpleNamespace(**fields))
    assert all(pair.chosen.counted and pair.rejected.counted for pair in pairs)
    return "pairs read"


def structured_file(chance, folder, tokenizer, story):
    point = {
        "features": {"fields": {"name": "Ada", "year": 1815}},
        "fact_template": {"prompt": "{name} ", "completion": "{year}"},
    }
    points = [point, {"prompt": text(chance), "completion": "x"}]
    whole = {
        "document_dataset": {"docs": [{"prompt": "", "completion": text(chance) or "x"} for _ in range(3)]},
        "eval_dataset_builders": {
            "facts": {"eval_points": points, "metrics": [{"function_name": "accuracy_and_loss"}]}
        },
    }
    part = chance.choice(
        [whole, whole["document_dataset"], whole["eval_dataset_builders"]["facts"], point, point["features"]]
    )
    if chance.random() < 0.6:
        name = chance.choice(list(part))
        part[name] = junk(chance)
        if chance.random() < 0.2:
            del part[name]
    if chance.random() < 0.3:
        point["few_shot_example_features"] = junk(chance)
    path = folder / "set.json"
    path.write_text(json.dumps(whole))
    story(path.read_text())
    found = read_structured(str(path))
    tokenizer([example.prompt + example.completion for example in found.documents])
    return "structured read"


def corpus_file(chance, folder, tokenizer, story):
    """Rows made, then a byte of them changed: never used again as they were."""
    path = a_file(chance, folder / "corpus.jsonl", [{"text": text(chance) + " words" * 30} for _ in range(20)], story)
    source = Source(
        describe_files(corpus_files(str(path))), max_length=8, validation_share=0.4, seed=chance.randint(0, 99)
    )
    made = prepare_tokens(folder / "rows", tokenizer, source, say=story)
    before = np.array(made.train)
    assert tokenizer.pad_token_id not in before, "a <|pad|> of the corpus became the token"
    victim = chance.choice(sorted(entry for entry in (folder / "rows").iterdir()))
    content = bytearray(victim.read_bytes())
    at = chance.randrange(len(content))
    content[at] ^= 1 << chance.randrange(8)
    victim.write_bytes(content)
    story(f"a bit of byte {at} of {victim.name} flipped")
    again = prepare_tokens(folder / "rows", tokenizer, source, say=story)
    assert np.array_equal(again.train, before), "other rows than those of the corpus"
    assert again.how == "fresh" or victim.name == "manifest.json", "wrong bytes were used again"
    return "corpus read"


def answers(chance, folder, tokenizer, story):
    """The value that was asked for is found in what is said around it; nothing said is ever a traceback."""
    wanted = chance.choice([{"a": 1, "b": [chance.randint(0, 9)]}, [chance.randint(0, 9), {"c": "}"}]])
    before = chance.choice(
        [
            "",
            "Here: ",
            '<think>[1] or {"a": 2}?</think>',
            "As [1] says: " if isinstance(wanted, dict) else "As Smith says: ",
            "{not json} ",
            '{"a": NaN} ',
        ]
    )
    after = chance.choice(["", "\n\nInput: more", " {cut", "\n[9]", "```", "9" * 5000])
    said = before + json.dumps(wanted) + after
    story(said)
    assert read_answer(said, wanted) == wanted, "another value than the answer"
    noise = "".join(chance.choice(NOISE) for _ in range(chance.randint(0, 60)))
    story(noise)
    schema = chance.choice(
        [None, {}, {"type": "object", "required": ["a"]}, True, {"properties": {"a": {"multipleOf": 1e-300}}}]
    )
    scores = json_metrics([said, noise, "[" * 5000, "[" * 900 + "]" * 900], [wanted, "x", 1, [1]], [schema] * 4)
    assert all(0 <= value <= 1 for value in scores.values())
    assert read_answer("nothing of the kind", wanted) is NOTHING
    return "answer read"


def schemas(chance, folder, tokenizer, story):
    """A schema that passes the check can judge any value."""

    def part(depth: int) -> Any:
        if not depth:
            return chance.choice([True, {}, {"type": "string"}, {"$ref": chance.choice(REFERENCES)}])
        keyword = chance.choice(["properties", "items", "allOf", "not", "$ref", "pattern", "enum"])
        inner = {"properties": {"a": part(depth - 1)}, "items": part(depth - 1), "allOf": [part(depth - 1)], "not": part(depth - 1),
                 "$ref": "#/$defs/" + chance.choice("ab"), "pattern": chance.choice(["a+", "("]), "enum": [1]}  # fmt: skip
        return {keyword: inner[keyword]}

    whole = {**({"$defs": {"a": part(2), "b": part(1)}} if chance.random() < 0.9 else {}), "anyOf": [part(3)]}
    story(json.dumps(whole))
    check_schema(whole, str(folder / "schema.json"))
    for value in ({"a": {"a": {"a": 1}}}, [[[]]], "x", None, {"a": "x"}):
        strictly = complies.__globals__["validator_for"](whole, default=complies.__globals__["Draft202012Validator"])
        strictly(whole, registry=complies.__globals__["REGISTRY"]).is_valid(value)  # raises where it cannot judge
    return "schema read"


KINDS = [chat_file, labelled_file, pair_file, structured_file, corpus_file, answers, schemas]


@trials("data", quick=5, full=60)
def test_a_data_file_is_read_for_what_it_is_or_refused_by_name(chance, tmp_path, tokenizer):
    for number, kind in enumerate(KINDS * 2):
        folder, story = tmp_path / str(number), Story()
        folder.mkdir()
        try:
            SEEN[kind(chance, folder, tokenizer, story)] += 1
        except InputError as error:
            SEEN[f"{kind.__name__} refused"] += 1
            named = str(folder) in str(error) or str(error).startswith("settings.")
            assert named, f"which file? {error}\n" + "\n".join([kind.__name__, *story.done])
        except Exception as error:
            error.add_note("\n".join([f"{kind.__name__}, in order:", *story.done]))
            raise


@pytest.mark.slow
def test_the_trials_did_read_and_did_refuse_each_kind():
    """Runs after the trials above in one process; alone it has nothing to say."""
    if sum(SEEN.values()) < 400:
        pytest.skip("the trials were run elsewhere")
    for kind in KINDS:
        assert kind is answers or SEEN[f"{kind.__name__} refused"] >= 5, SEEN
    for read in ("chat", "labels", "pairs", "structured", "corpus", "answer", "schema"):
        assert SEEN[f"{read} read"] >= 10, SEEN
