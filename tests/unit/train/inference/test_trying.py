"""A model that is tried: its answers depend on prompt and seed alone, and those of base and tuned model are those of each by itself."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from remote_payload.recipes.answers import Answer
from remote_payload.settings.generation import Answering
from remote_payload.settings.sample import SampleSettings
from remote_payload.train.errors import InputError
from remote_payload.train.inference.asking import as_asked, prompt_tokens, told_to
from remote_payload.train.inference.target import load_target
from remote_payload.train.inference.trying import Trial, describe, load_trial
from tests.support.models.plain_adapter import causal_adapter, classifier_adapter
from tests.support.models.smoke_models import LABELS, causal_run, classifier_run
from tests.support.models.tiny_models import CORPUS, save_tiny_model
from tests.support.trials import trials

CPU = torch.device("cpu")
Made = tuple[Path, Path]  # a model and its base
WORDS = [*" ".join(CORPUS).split(), "naïve", "日本語", "two\nlines"]


def biased_adapter(root: Path) -> Made:
    """A plain adapter that trained biases too, which peft cannot switch off."""
    torch.manual_seed(5)
    base = save_tiny_model("qwen2", root / "base")
    config = LoraConfig(r=4, target_modules=["q_proj"], bias="all", task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter))
    model.save_pretrained(root / "adapter")
    return root / "adapter", base


def plain_adapter(root: Path) -> Made:
    base = save_tiny_model("llama", root / "base")
    folder = causal_adapter(base, root / "adapter", list(CORPUS), ["q_proj", "v_proj"])
    weights = folder / "adapter_model.safetensors"
    torch.manual_seed(7)
    save_file({name: tensor + torch.randn_like(tensor) for name, tensor in load_file(weights).items()}, weights)
    return folder, base


def whole(root: Path) -> Made:
    """All weights were trained."""
    folder = causal_run(root, adapter=False)
    torch.manual_seed(6)
    network = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    network.save_pretrained(folder)
    return folder, root / "base"


BUILD: dict[str, Callable[[Path], Made]] = {
    "adapter": lambda root: (causal_run(root), root / "base"),
    "whole": whole,
    "plain adapter": plain_adapter,
    "trained biases": biased_adapter,
}


@dataclass(frozen=True)
class Loads:
    """One model, loaded in each of the ways that are compared."""

    folder: Path
    base: Path
    beside: Trial
    tuned: Trial
    untuned: Trial


def load(folder: Path, base: Path) -> Loads:
    beside, alone = (
        load_trial(folder, SampleSettings(base=each), CPU, torch.float32, base_path=base) for each in (True, False)
    )
    untuned = Trial(load_target(folder, base_path=base, ask_base=True), SampleSettings())
    return Loads(folder, base, beside, alone, untuned)


@pytest.fixture(scope="module")
def loads_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Loads]:
    @functools.cache
    def get(name: str) -> Loads:
        return load(*BUILD[name](tmp_path_factory.mktemp(name.replace(" ", "-"))))

    return get


def random_settings(chance: random.Random) -> SampleSettings:
    how = Answering(
        max_new_tokens=chance.randint(1, 10), temperature=chance.choice([0.0, 0.5, 1.5]), top_p=chance.choice([0.5, 1.0]),
        repetition_penalty=chance.choice([1.0, 1.3]),
    )  # fmt: skip
    return SampleSettings(samples=chance.randint(1, 4), seed=chance.randrange(1000), answering=how)


def said(answers: tuple[Answer, ...]) -> list[tuple[int, str, int, bool]]:
    return [(each.sample, each.text, each.tokens, each.ended) for each in answers]


@trials("beside", quick=8, full=60)
def test_side_by_side_each_says_what_it_says_alone_whatever_was_asked_before(
    loads_of: Callable[[str], Loads], chance: random.Random
) -> None:
    settings, loads = random_settings(chance), loads_of(chance.choice(list(BUILD)))
    beside = replace(loads.beside, settings=replace(settings, base=True))
    alone, tuned = (replace(each, settings=settings) for each in (loads.untuned, loads.tuned))
    prompts = [" ".join(chance.choices(WORDS, k=chance.randint(1, 12))) for _ in range(3)]
    for prompt in chance.sample(prompts, 3):
        found = beside.answer(prompt)
        assert [each.base for each in found.answers] == [True, False] * settings.samples
        assert said(found.answers[0::2]) == said(alone.answer(prompt).answers)
        assert said(found.answers[1::2]) == said(tuned.answer(prompt).answers)


@pytest.mark.parametrize("name", BUILD)
def test_the_base_beside_is_what_transformers_loads(loads_of: Callable[[str], Loads], name: str) -> None:
    loads = loads_of(name)
    trial = replace(loads.beside, settings=SampleSettings(base=True, answering=Answering(max_new_tokens=8)))
    plain = AutoModelForCausalLM.from_pretrained(loads.base)
    differ = 0
    for prompt in CORPUS:
        text, _ = as_asked(trial.target.tokenizer, prompt, trial.target.prompting)
        ids = torch.tensor([prompt_tokens(trial.target, text)])
        with torch.no_grad():
            out = plain.generate(
                ids, max_new_tokens=8, do_sample=False, pad_token_id=1, eos_token_id=trial.target.end_tokens
            )
        untuned, tuned = trial.answer(prompt).answers
        assert untuned.text == trial.target.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        differ += untuned.text != tuned.text
    assert differ


@trials("samples", quick=6, full=60)
def test_a_sample_follows_from_its_prompt_and_seed_alone(
    loads_of: Callable[[str], Loads], chance: random.Random
) -> None:
    settings = random_settings(chance)
    prompt = chance.choice(CORPUS)[: chance.randint(3, 60)]
    trial = replace(loads_of("adapter").tuned, settings=settings)
    all_of_them = said(trial.answer(prompt).answers)
    fewer = replace(settings, samples=chance.randint(1, settings.samples))
    assert said(replace(trial, settings=fewer).answer(prompt).answers) == all_of_them[: fewer.samples]
    number = chance.randint(1, settings.samples)
    (alone,) = (
        replace(trial, settings=replace(settings, samples=1, seed=settings.seed + number - 1)).answer(prompt).answers
    )
    assert (alone.text, alone.tokens) == all_of_them[number - 1][1:3]


def test_several_samples_of_a_lively_model_differ(loads_of: Callable[[str], Loads]) -> None:
    settings = SampleSettings(samples=5, answering=Answering(max_new_tokens=10, temperature=1.5))
    found = replace(loads_of("adapter").tuned, settings=settings).answer("The ship")
    assert len({each.text for each in found.answers}) == 5


def test_the_system_message_is_that_of_training_or_another_one_or_none(loads_of: Callable[[str], Loads]) -> None:
    target = loads_of("adapter").tuned.target
    trained = replace(target, prompting={"chat": True, "system_prompt": "Be short.", "end_tokens": [3]})

    def asked(system: str | None) -> list[Any]:
        how = Answering(max_new_tokens=10, system_prompt=system)
        trial = Trial(told_to(trained, how), SampleSettings(answering=how))
        return said(trial.answer("The ship").answers)

    assert asked(None) == asked("Be short.") != asked("Tell me everything about ships.")
    assert asked("") not in (asked(None), asked("Tell me everything about ships."))


@pytest.mark.parametrize("threshold", [None, 1])
def test_a_classifier_says_how_probable_each_class_is(tmp_path: Path, threshold: int | None) -> None:
    folder = classifier_run(tmp_path, "bert")
    if threshold is not None:
        facts = json.loads((folder / "gpurun.json").read_text())
        (folder / "gpurun.json").write_text(json.dumps({**facts, "labels": [0, 1], "binary_threshold": threshold}))
    trial = load_trial(folder, SampleSettings(), CPU, torch.float32, base_path=tmp_path / "base")
    assert describe(trial, folder).threshold == threshold
    target = trial.target
    for text in CORPUS:
        ids = torch.tensor([target.tokenizer(text, truncation=True, max_length=64)["input_ids"]])
        with torch.no_grad():
            shares = target.logits(ids, torch.ones_like(ids), False)[0].softmax(-1).tolist()
        found = trial.answer(text).classified
        assert found is not None and not trial.answer(text).answers
        assert list(found.probabilities.values()) == pytest.approx(shares, abs=1e-5)
        best = max(range(2), key=lambda index: shares[index])
        assert found.prediction == str(LABELS[best] if threshold is None else best)
        assert found.positive == (None if threshold is None else best >= 1)
        assert found.positive_probability == (None if threshold is None else pytest.approx(shares[1], abs=1e-5))


def test_what_has_no_base_or_no_tokens_is_said(loads_of: Callable[[str], Loads], tmp_path: Path) -> None:
    loads = loads_of("plain adapter")
    beside = SampleSettings(base=True)
    scores = classifier_adapter(
        save_tiny_model("llama", tmp_path / "c"), tmp_path / "a", [(CORPUS[0], 0), (CORPUS[1], 1)], ["q_proj"]
    )
    for place, words in (
        (loads.base, "mine: it began with no other model"),
        (scores, "mine: a classifier's base has no classes"),
    ):
        with pytest.raises(InputError, match=words):
            load_trial(place, beside, CPU, torch.float32, name="mine")
    with pytest.raises(InputError, match="no tokens"):
        loads_of("adapter").tuned.answer("")


def test_a_folder_that_cannot_be_loaded_is_called_as_it_was_typed(
    loads_of: Callable[[str], Loads], tmp_path: Path
) -> None:
    folder, base = loads_of("adapter").folder, loads_of("adapter").base
    for broken in (base / "config.json", base / "model.safetensors"):
        kept = broken.read_bytes()
        broken.unlink()
        try:
            with pytest.raises(InputError, match=r"^brie:step-4: ") as refused:
                load_target(folder, name="brie:step-4", base_path=base)
            assert "settings.model" not in str(refused.value)
        finally:
            broken.write_bytes(kept)
