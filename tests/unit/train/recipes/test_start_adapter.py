"""``settings.adapter``: training that starts from an adapter, one that transformers' own Trainer saved above all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from remote_payload.train.model.classifier import load_classifier
from tests.support.models.classify_job import classify_settings, write_texts
from tests.support.models.language_data import conversations, pairs, run_recipe_here, write_lines
from tests.support.models.plain_adapter import causal_adapter, classifier_adapter

NO_ANSWERS = {"generation": {"examples": 0, "latency_examples": 0}}
FROZEN = {"max_steps": 1, "optimizer": {"learning_rate": 1e-12, "weight_decay": 0.0}}  # a step that changes nothing
WORDS = ["The ship left London in the spring.", "Nobody on the quay believed it.", "Ada sailed in 1823."]


def report_of(folder: Path) -> dict[str, dict[str, float]]:
    return json.loads((folder / "outputs/reports/evaluation.json").read_text())["held_out"]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Any) -> Path:
    """An adapter on all linear layers, as the Trainer saved it: nothing in the folder is gpurun's."""
    folder = causal_adapter(tiny_folder("llama"), tmp_path_factory.mktemp("plain") / "adapter", WORDS, "all-linear")
    assert not (folder / "gpurun.json").exists() and not (folder / "tokenizer.json").exists()
    return folder


def sft(tmp_path: Path, base: Path, adapter: Path, **changes: Any) -> dict[str, Any]:
    data = write_lines(tmp_path / "chat.jsonl", conversations(20))
    small = {"model": str(base), "max_length": 64, "batch": {"size": 5}, "train": str(data), "validation": str(data)}
    return {**small, **NO_ANSWERS, "adapter": str(adapter), **changes}


def test_sft_starts_from_an_adapter_of_the_trainers_and_not_from_a_new_one(tmp_path, tiny_folder, plain):
    """After a step that changes nothing the saved weights are the Trainer's, and its loss is that of the model they make."""
    settings = sft(tmp_path, tiny_folder("llama"), plain, **FROZEN)
    assert run_recipe_here("sft", tmp_path / "still", settings) == 0
    kept, came = weights_of(tmp_path / "still/outputs/models/best"), weights_of(plain)
    assert kept.keys() == came.keys()
    for name, tensor in came.items():
        torch.testing.assert_close(kept[name], tensor, rtol=0, atol=1e-6)
    figures = report_of(tmp_path / "still")
    assert set(figures) == {"tuned", "before", "base"}
    assert figures["before"]["loss"] == pytest.approx(figures["tuned"]["loss"], abs=1e-5)
    assert abs(figures["base"]["loss"] - figures["before"]["loss"]) > 0.01  # the Trainer's adapter is no small thing
    rows = [json.loads(line) for line in (tmp_path / "chat.jsonl").read_text().splitlines()]
    expected = loss_by_hand(tiny_folder("llama"), plain, rows)
    assert figures["before"]["loss"] == pytest.approx(expected, rel=1e-4)


def loss_by_hand(base: Path, adapter: Path | None, rows: list[dict[str, Any]]) -> float:
    """The mean loss of the answers' tokens through peft and transformers alone."""
    from remote_payload.train.data.chat import Format, encode_examples
    from remote_payload.train.data.records import Record
    from tests.support.models.tiny_models import tiny_tokenizer

    network = AutoModelForCausalLM.from_pretrained(base)
    model = (PeftModel.from_pretrained(network, adapter) if adapter else network).eval()
    records = [Record(row, "chat.jsonl", line) for line, row in enumerate(rows, start=1)]
    examples, _ = encode_examples(records, tiny_tokenizer(), Format(), 64, print)
    total, count = 0.0, 0
    for example in examples:
        ids = torch.tensor([example.document.ids])
        with torch.no_grad():
            scores = model(input_ids=ids).logits[0].float().log_softmax(-1)
        for position, learnt in enumerate(example.document.learn):
            if learnt and position:
                total, count = total - scores[position - 1, ids[0, position]].item(), count + 1
    return total / count


def test_sft_goes_on_learning_from_there_and_says_so_on_the_card(tmp_path, tiny_folder, plain):
    settings = sft(tmp_path, tiny_folder("llama"), plain, epochs=3, optimizer={"learning_rate": 0.01})
    assert run_recipe_here("sft", tmp_path / "run", settings) == 0
    figures = report_of(tmp_path / "run")
    assert figures["tuned"]["loss"] < min(figures["before"]["loss"], figures["base"]["loss"])
    card = (tmp_path / "run/outputs/models/best/README.md").read_text()
    assert "LoRA of rank 4, going on from the adapter `adapter`" in card
    assert "`before` is the model with the adapter that this training started from" in card
    # What comes out is a start again, and the resumed run begins where the first one began.
    again = sft(tmp_path, tiny_folder("llama"), tmp_path / "run/outputs/models/best", **FROZEN)
    assert run_recipe_here("sft", tmp_path / "again", again) == 0
    assert report_of(tmp_path / "again")["before"]["loss"] == pytest.approx(figures["tuned"]["loss"], rel=1e-4)


def test_preference_starts_from_an_adapter_of_the_trainers_and_compares_it_with_its_base(tmp_path, tiny_folder, plain):
    data = write_lines(tmp_path / "pairs.jsonl", pairs())
    settings = {"model": str(tiny_folder("llama")), "adapter": str(plain), "train": str(data), "max_length": 64, **NO_ANSWERS,
                "batch": {"size": 5}, "epochs": 6, "optimizer": {"learning_rate": 0.01}}  # fmt: skip
    assert run_recipe_here("preference", tmp_path / "run", settings) == 0
    figures = report_of(tmp_path / "run")
    assert set(figures) == {"tuned", "before", "base"}
    assert figures["before"]["loss"] == pytest.approx(0.693147, abs=1e-4) and figures["before"][
        "reward_margin"
    ] == pytest.approx(0, abs=1e-4)
    assert abs(figures["base"]["reward_margin"]) > 0.01  # the base is not the reference
    assert figures["tuned"]["reward_accuracy"] == 1.0
    about = json.loads((tmp_path / "run/outputs/models/best/gpurun.json").read_text())
    assert about["chat"] is True and about["end_tokens"] and about["max_length"] == 64


def test_preference_asks_a_plain_adapter_with_a_prompt_template_where_the_job_has_one(tmp_path, tiny_folder, plain):
    data = write_lines(tmp_path / "pairs.jsonl", pairs())
    settings = {"model": str(tiny_folder("llama")), "adapter": str(plain), "train": str(data), "max_length": 64, **NO_ANSWERS,
                "prompt_template": "Q: {prompt}\nA: ", "batch": {"size": 5}, "max_steps": 1}  # fmt: skip
    assert run_recipe_here("preference", tmp_path / "run", settings) == 0
    about = json.loads((tmp_path / "run/outputs/models/best/gpurun.json").read_text())
    assert about["chat"] is False and about["prompt_template"] == "Q: {prompt}\nA: "


def test_classify_starts_from_a_sequence_classifier_of_the_trainers(tmp_path, tiny_folder):
    """The encoder's layers are taken under their own names; the head, which is of another kind, is not."""
    texts = [(text, index % 3) for index, text in enumerate(WORDS * 4)]
    adapter = classifier_adapter(tiny_folder("bert"), tmp_path / "adapter", texts, r".*bert\.encoder.*(query|value)")
    data = write_texts(tmp_path / "data" / "a.jsonl", 40)
    settings = {
        **classify_settings(tiny_folder("bert"), data.parent, labels=[0, 1, 2]),
        **FROZEN,
        "adapter": str(adapter),
    }
    assert run_recipe_here("classify", tmp_path / "run", settings) == 0
    best = tmp_path / "run/outputs/models/best"
    kept, came = weights_of(best), weights_of(adapter)
    taken = {name: tensor for name, tensor in came.items() if ".lora_" in name}
    assert len(taken) == len(kept) < len(came)
    for name, tensor in taken.items():
        torch.testing.assert_close(kept[name.replace(".bert.", ".")], tensor, rtol=0, atol=1e-6)
    assert "LoRA of rank 4, going on from the adapter `adapter`" in (best / "README.md").read_text()
    # The encoder gives what peft's own model gives.
    model, tokenizer = load_classifier(best, tiny_folder("bert"))
    batch = tokenizer(WORDS, padding=True, return_tensors="pt")
    network = AutoModelForSequenceClassification.from_pretrained(tiny_folder("bert"), num_labels=3)
    theirs = PeftModel.from_pretrained(network, adapter).eval().get_base_model().bert
    with torch.no_grad():
        found = model.encoder(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        wanted = theirs(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    torch.testing.assert_close(
        found[batch["attention_mask"] == 1], wanted[batch["attention_mask"] == 1], rtol=1e-4, atol=1e-5
    )


def test_classify_goes_on_with_the_head_of_an_earlier_run_of_the_same_classes_only(tmp_path, tiny_folder, capsys):
    data = write_texts(tmp_path / "data" / "a.jsonl", 40)
    first = classify_settings(tiny_folder("bert"), data.parent, labels=[0, 1, 2], epochs=2, lora={"rank": 4})
    assert run_recipe_here("classify", tmp_path / "first", first) == 0
    best = tmp_path / "first/outputs/models/best"
    still = {**first, **FROZEN, "adapter": str(best)}
    assert run_recipe_here("classify", tmp_path / "second", still) == 0
    ours, before = (load_file(each / "head.safetensors") for each in (tmp_path / "second/outputs/models/best", best))
    torch.testing.assert_close(ours, before, rtol=0, atol=1e-6)
    capsys.readouterr()
    assert run_recipe_here("classify", tmp_path / "third", {**still, "labels": [0, 1, 2, 3]}) == 0
    assert "the head begins at random" in capsys.readouterr().out


def changed(adapter: Path, folder: Path, **config: Any) -> Path:
    shutil.copytree(adapter, folder)
    known = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**known, **config}))
    return folder


def test_what_training_cannot_go_on_from_is_refused_with_the_reason(tmp_path, tiny_folder, plain, capsys):
    base = tiny_folder("llama")

    def said(adapter: Path, **changes: Any) -> str:
        capsys.readouterr()
        assert run_recipe_here("sft", tmp_path / "refused", sft(tmp_path, base, adapter, **changes)) == 2
        return capsys.readouterr().err

    assert "lora.rank: 0 trains all weights" in said(plain, lora={"rank": 0})
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no adapter, adapter_config.json is missing" in said(empty)
    assert "it is a whole model" in said(base)
    pickled = changed(plain, tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    assert "is a pickle, which is never loaded" in said(pickled)
    lacking = changed(plain, tmp_path / "lacking")
    weights = weights_of(lacking)
    del weights[sorted(weights)[0]]
    save_file(weights, lacking / "adapter_model.safetensors")
    assert "1 weights differ" in said(lacking)
    other = causal_adapter(tiny_folder("gpt2"), tmp_path / "other", WORDS[:1], ["c_attn"])
    assert "Target modules" in said(changed(other, tmp_path / "renamed", base_model_name_or_path=str(base)))
    network = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(network, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)).save_pretrained(
        tmp_path / "prompt"
    )
    assert "is PROMPT_TUNING; training goes on with LoRA alone" in said(tmp_path / "prompt")
    network = AutoModelForCausalLM.from_pretrained(base)
    head = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "lm_head"])
    get_peft_model(network, head).save_pretrained(tmp_path / "head")
    assert "an adapter on the output head (lm_head) is not supported" in said(tmp_path / "head")


def test_an_adapter_that_names_another_base_is_flagged_and_used(tmp_path, tiny_folder, plain):
    elsewhere = changed(plain, tmp_path / "elsewhere", base_model_name_or_path="somebody/Other-1B")
    assert run_recipe_here("sft", tmp_path / "run", sft(tmp_path, tiny_folder("llama"), elsewhere, **FROZEN)) == 0
    events = [json.loads(line) for line in (tmp_path / "run/events.jsonl").read_text().splitlines()]
    flag = next(event for event in events if event["type"] == "flag" and event["name"] == "other_base")
    assert "somebody/Other-1B" in flag["message"]
    assert not any(event.get("name") == "other_base" for event in quiet(tmp_path, tiny_folder, plain))


def quiet(tmp_path: Path, tiny_folder: Any, plain: Path) -> list[dict[str, Any]]:
    """The events of a run whose adapter names the base that it has."""
    assert run_recipe_here("sft", tmp_path / "quiet", sft(tmp_path, tiny_folder("llama"), plain, **FROZEN)) == 0
    return [json.loads(line) for line in (tmp_path / "quiet/events.jsonl").read_text().splitlines()]
