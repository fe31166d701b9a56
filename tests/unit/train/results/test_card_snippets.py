"""The Python in each kind of card, executed in a process without gpurun: it predicts what the box predicted for ``smoke/``."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from remote_payload.settings.generation import Generation
from remote_payload.train.data.chat import PLACEHOLDER, as_text, prompt_ids
from remote_payload.train.results.usage import causal_usage
from tests.support.models.card_snippets import Task, put_into_cache, run_without_gpurun, snippet_of
from tests.support.models.classify_job import classify_settings, write_texts
from tests.support.models.language_data import conversations, extractions, pairs, write_lines
from tests.support.models.recipe_process import run_recipe_here
from tests.support.models.standard_encoders import save_standard_encoder
from tests.support.models.tiny_models import CORPUS, save_tiny_model, tiny_model, tiny_tokenizer

COMMIT = "c" * 40
SYSTEM = 'You are "Brie" {today}.'
TEMPLATE = 'Input: {prompt}\nSchema: {schema}\nReply like {"a": 1}:\n'
FEW = {"max_length": 96, "max_steps": 2, "smoke_rows": 3, "optimizer": {"learning_rate": 0.01}}
NO_ANSWERS = {"examples": 0, "base": False, "latency_examples": 0}
# What the snippet's own function answers, the tokens that it gave to the model, and the logits after each prompt of the box.
LANGUAGE = """
import inspect
given, generate = [], model.generate
def recorded(ids, **options):
    given.append(ids[0].tolist())
    return generate(ids, **options)
model.generate = recorded
texts = [answer(each, max_new_tokens=NEW) for each in ASKED]
with torch.no_grad():
    logits = [model(torch.tensor([ids])).logits[0, -1].tolist() for ids in given]
found = {"texts": texts, "given": given, "logits": logits}
"""
CLASSES = "found = logits_of(TEXTS).tolist()"


class Kind(NamedTuple):
    """A trained model: its folder, and what to ask it (of a language model; the argument of the snippet's function)."""

    best: Path
    asked: list[Any]


def write_data(code: Path) -> None:
    """Models and data of all kinds, in the folder of the jobs' code."""
    save_tiny_model("qwen2", code / "bases" / "qwen")
    save_tiny_model("bert", code / "bases" / "bert", chat=False)
    save_standard_encoder("eurobert", code / "bases" / "euro")
    save_tiny_model("olmo2", code / "bases" / "olmo", chat=False)
    single = [row for row in conversations(30) if len(row["messages"]) == 2]
    write_lines(code / "chat.jsonl", single)
    write_lines(code / "extract.jsonl", extractions(20))
    write_lines(code / "pairs.jsonl", pairs())
    write_texts(code / "texts.jsonl", 30)
    (code / "corpus.txt").write_text("\n\n".join(CORPUS * 20))
    documents = {"docs": [{"prompt": "", "completion": text} for text in CORPUS]}
    questions = [{"prompt": "The mayor of", "completion": " town"}, {"prompt": "The ship", "completion": " left"}]
    sets = {"questions": {"eval_points": questions[:1]}, "others": {"eval_points": questions[1:]}}
    dataset = {"document_dataset": documents, "eval_dataset_builders": sets}
    (code / "dataset.json").write_text(json.dumps(dataset))


def jobs() -> dict[str, dict[str, Any]]:
    """A job for each kind of card."""
    lora = {"lora": {"rank": 4, "alpha": 16}}
    chat = {"model": "bases/qwen", "train": "chat.jsonl", "system_prompt": SYSTEM, "generation": NO_ANSWERS, **FEW}
    classes = classify_settings(Path("bases/bert"), Path("texts.jsonl"), max_steps=2)
    return {
        "chat": {"recipe": "sft", "settings": {**chat, **lora}},
        "template": {
            "recipe": "sft",
            "settings": {
                **FEW, **lora, "model": "acme/llama", "revision": COMMIT, "train": "extract.jsonl", "generation": NO_ANSWERS,
                "prompt_template": TEMPLATE, "completion_field": "expected_output",
            },
        },
        "whole": {"recipe": "finetune", "settings": {**FEW, "model": "bases/olmo", "dataset": "dataset.json", "weights": "bf16"}},
        "from nothing": {
            "recipe": "pretrain",
            "settings": {
                **FEW, "corpus": "corpus.txt", "vocabulary": 300, "max_length": 32, "model": {"layers": 2, "width": 32, "heads": 2},
            },
        },
        "preference": {
            "recipe": "preference",
            "settings": {
                **FEW, "model": "bases/qwen", "train": "pairs.jsonl", "adapter": "../runs/chat/outputs/models/best",
                "generation": NO_ANSWERS,
            },
        },
        "classes": {"recipe": "classify", "settings": classes},
        "classes, base of the Hub": {"recipe": "classify", "settings": {**classes, "model": "acme/gemma", "revision": COMMIT}},
        "classes, whole": {"recipe": "classify", "settings": {**classes, "lora": {"rank": 0}, "model": "bases/bert"}},
        "classes, standard": {"recipe": "classify", "settings": {**classes, "lora": {"rank": 0}, "model": "bases/euro"}},
    }  # fmt: skip


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    """A trained model of each kind, by name."""
    root = tmp_path_factory.mktemp("cards")
    write_data(root / "code")
    for name, architecture in (("acme/llama", "llama"), ("acme/gemma", "gemma3")):
        put_into_cache(root / "runs" / "cache" / "hf", name, architecture, COMMIT)
    found = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        for name, job in jobs().items():
            run = run_recipe_here({"name": name, **job}, root / "code", root / "runs" / name)
            best = run.outputs / "models" / "best"
            found[name] = Kind(best, asked(root / "code", job, smoke_inputs(best)))
    return found


def smoke_inputs(best: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (best / "smoke" / "inputs.jsonl").read_text().splitlines()]


def asked(code: Path, job: dict[str, Any], inputs: list[dict[str, Any]]) -> list[Any]:
    """What a user of the model would ask, so that it is asked the prompts of the smoke test."""
    if job["recipe"] == "classify":
        return [row["text"] for row in inputs]
    prompts = [row["prompt"] for row in inputs]
    if job["recipe"] in ("finetune", "pretrain"):
        return prompts
    if "prompt_template" not in job["settings"]:
        return [prompt.split("<|im_start|>user\n")[1].split("<|im_end|>")[0] for prompt in prompts]
    rows = [json.loads(line) for line in (code / job["settings"]["train"]).read_text().splitlines()]
    fields = [{name: as_text(value) for name, value in row.items()} for row in rows]
    by_prompt = {PLACEHOLDER.sub(lambda name: each[name[1]], TEMPLATE): each for each in fields}  # noqa: B023
    return [by_prompt[prompt] for prompt in prompts]


@pytest.fixture(scope="module")
def answers(kinds: dict[str, Kind]) -> dict[str, Any]:
    """What every snippet answers, run in folders from which ``models/best`` and the local bases can be reached."""
    tasks = {}
    for name, kind in kinds.items():
        root = kind.best.parents[4]
        folder = root / "elsewhere" / name
        folder.mkdir(parents=True)
        (folder / "models").symlink_to(kind.best.parent)
        (folder / "bases").symlink_to(root / "code" / "bases")
        after = CLASSES.replace("TEXTS", repr(kind.asked))
        if "classes" not in name:
            new = load_file(kind.best / "smoke" / "expected.safetensors")["tokens"].shape[1]
            after = LANGUAGE.replace("NEW", str(new)).replace("ASKED", repr(kind.asked))
        tasks[name] = Task(folder, snippet_of(kind.best), after, offline="revision=" in snippet_of(kind.best))
    local = tasks["chat"]
    nowhere = root / "nowhere"
    nowhere.mkdir()
    (nowhere / "models").symlink_to(kinds["chat"].best.parent)
    tasks |= {
        "no base here": Task(nowhere, local.snippet, local.after, offline=False),
        "no model here": Task(root, tasks["classes, whole"].snippet, local.after, offline=False),
    }
    return run_without_gpurun(tasks, root / "runs" / "cache" / "hf")


LANGUAGE_MODELS = [name for name in jobs() if "classes" not in name]


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_language_models_card_answers_what_the_box_answered(
    name: str, kinds: dict[str, Kind], answers: dict[str, Any]
) -> None:
    best, found = kinds[name].best, answers[name]["found"]
    expected = load_file(best / "smoke" / "expected.safetensors")
    tokenizer = AutoTokenizer.from_pretrained(best)
    rows = smoke_inputs(best)
    assert rows and len(found["given"]) == len(rows)
    for row, given in zip(rows, found["given"], strict=True):
        ids = tokenizer(row["prompt"], add_special_tokens=row["add_special_tokens"])["input_ids"]
        assert given == ids, "the snippet asks in another form than training did"
    torch.testing.assert_close(torch.tensor(found["logits"]), expected["logits"], atol=1e-4, rtol=1e-4)
    kept = [[token for token in row if token >= 0] for row in expected["tokens"].tolist()]
    assert found["texts"] == [tokenizer.decode(row, skip_special_tokens=True) for row in kept]
    assert any(found["texts"]), "answers that are all empty prove nothing"


@pytest.mark.parametrize("name", [name for name in jobs() if "classes" in name])
def test_a_classifiers_card_gives_the_logits_of_the_box(
    name: str, kinds: dict[str, Kind], answers: dict[str, Any]
) -> None:
    expected = load_file(kinds[name].best / "smoke" / "expected.safetensors")["logits"]
    torch.testing.assert_close(torch.tensor(answers[name]["found"]), expected, atol=1e-5, rtol=1e-5)
    assert expected.std(0).min() > 1e-4, "equal logits for all texts prove nothing"


def test_a_whole_classifier_is_a_standard_checkpoint_where_the_architecture_has_one(kinds: dict[str, Kind]) -> None:
    standard, other = (snippet_of(kinds[name].best) for name in ("classes, standard", "classes, whole"))
    assert "AutoModelForSequenceClassification" in standard and "head.safetensors" not in standard
    assert "AutoModelForSequenceClassification" not in other and "head.safetensors" in other


def test_a_folder_that_is_not_there_is_an_error_and_nobody_is_asked_for_its_name(answers: dict[str, Any]) -> None:
    """A repository of the Hub with that name is somebody else's."""
    for name in ("no base here", "no model here"):
        assert answers[name]["found"]["error"] == "OSError", answers[name]
    assert {name: answer["asked"] for name, answer in answers.items() if answer["asked"]} == {}


def test_the_hubs_base_is_loaded_at_the_commit_of_training_by_the_card_and_by_pefts_own_classes(
    kinds: dict[str, Kind],
) -> None:
    for name in ("template", "classes, base of the Hub"):
        config = json.loads((kinds[name].best / "adapter_config.json").read_text())
        assert config["revision"] == COMMIT and f'revision="{COMMIT}"' in snippet_of(kinds[name].best)


def test_the_settings_of_generation_are_in_the_example() -> None:
    network, tokenizer = tiny_model("llama"), tiny_tokenizer()
    plain = causal_usage(network, tokenizer, None, {"chat": True, "end_tokens": [3]}, Generation())
    assert 'print(answer("…"))' in plain
    generation = Generation(temperature=0.75, top_p=0.9, repetition_penalty=1.1, max_new_tokens=33)
    sampled = causal_usage(network, tokenizer, None, {"end_tokens": [3]}, generation)
    assert "do_sample=True, temperature=0.75, top_p=0.9, top_k=0, repetition_penalty=1.1))" in sampled
    assert "max_new_tokens=33" in sampled


def test_a_tokenizer_that_ends_every_text_does_not_end_the_prompt() -> None:
    tokenizer = tiny_tokenizer()
    ends = TemplateProcessing(single="$A <|im_end|>", special_tokens=[("<|im_end|>", tokenizer.eos_token_id)])
    tokenizer.backend_tokenizer.post_processor = ends
    found = causal_usage(tiny_model("llama"), tokenizer, None, {"end_tokens": [3]}, Generation())
    asking = found.split("def answer(")[1].split("    greedy")[0].split("\n", 1)[1]
    names: dict[str, Any] = {"tokenizer": tokenizer, "prompt": "The ship"}
    exec(textwrap.dedent(asking), names)
    assert names["ids"][0].tolist() == prompt_ids(tokenizer, "The ship", add_special_tokens=True)
    assert tokenizer("The ship")["input_ids"][-1] == tokenizer.eos_token_id
