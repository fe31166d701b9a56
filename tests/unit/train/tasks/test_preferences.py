import json
import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from remote_payload.recipes.preference import dpo_loss, loss
from remote_payload.train.data.chat import Format
from remote_payload.train.data.records import Record
from remote_payload.train.distributed import World
from remote_payload.train.errors import InputError
from remote_payload.train.model.causal import CausalLoss
from remote_payload.train.tasks.preferences import PreferenceTask, collate, encode_pairs, preferred
from tests.support.models.language_data import conversations, pairs, run_recipe_here, write_lines
from tests.support.models.tiny_models import tiny_model, tiny_tokenizer

SETTINGS = SimpleNamespace(
    prompt_field="prompt", chosen_field="chosen", rejected_field="rejected", max_length=96, beta=0.3, seed=0,
    batch=SimpleNamespace(size=2),
)  # fmt: skip
LOSS = partial(loss, beta=SETTINGS.beta)


def encoded(values=None, form=None):
    records = [Record(value, "pairs.jsonl", line) for line, value in enumerate(values or pairs(), start=1)]
    return encode_pairs(records, tiny_tokenizer(), form or Format(), SETTINGS)


def make_model(seed=0):
    network = tiny_model("qwen2", seed)
    network.set_attn_implementation("gpurun_packed")
    return CausalLoss(network).eval()


def answer_log_probability(model, document):
    """By its definition: the document alone, whole logits, summed over what is learnt."""
    logits = model.network(input_ids=torch.tensor([document.ids])).logits[0]
    log_probabilities = F.log_softmax(logits.float(), dim=-1)
    learnt = [index for index, wanted in enumerate(document.learn) if wanted]
    return sum(log_probabilities[index - 1, document.ids[index]] for index in learnt)


def test_the_loss_is_the_papers_formula():
    policy = torch.tensor([[-10.0, -12.0], [-20.0, -15.0]])
    reference = torch.tensor([[-11.0, -11.5], [-18.0, -16.0]])
    losses, rewards = dpo_loss(policy, reference, beta=0.1)
    by_hand = [math.log(1 + math.exp(-0.1 * (1.0 - -0.5))), math.log(1 + math.exp(-0.1 * (-2.0 - 1.0)))]
    assert losses.tolist() == pytest.approx(by_hand)
    torch.testing.assert_close(rewards, torch.tensor([[0.1, -0.05], [-0.2, 0.1]]))


def test_packed_pairs_have_the_log_probabilities_and_the_gradient_of_each_answer_alone():
    found, _ = encoded()
    policy, reference = make_model(0), make_model(1)
    task = PreferenceTask(SETTINGS, World(0, 1, 0, torch.device("cpu")), found, found, torch.float32, LOSS)
    task.pairs = task.with_reference(reference, found)
    (batch,) = task.micro_batches([0, 1, 2], 4)
    found_loss = task.loss(policy, batch)
    found_loss.sum.backward()
    by_name = make_model(0)
    total = torch.zeros(())
    for pair in found[:3]:
        chosen, rejected = (answer_log_probability(by_name, d) for d in (pair.chosen, pair.rejected))
        with torch.no_grad():
            before = [answer_log_probability(reference, d) for d in (pair.chosen, pair.rejected)]
        total = total - F.logsigmoid(0.3 * ((chosen - rejected) - (before[0] - before[1])))
    total.backward()
    assert found_loss.count == 3
    torch.testing.assert_close(found_loss.sum, total, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(policy.parameters(), by_name.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_before_training_the_margin_is_zero_and_the_loss_is_log_two():
    found, _ = encoded()
    model = make_model()
    task = PreferenceTask(SETTINGS, World(0, 1, 0, torch.device("cpu")), found, found, torch.float32, LOSS)
    result = task.measure(model, task.with_reference(model, found), 4)
    assert result["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert result["reward_margin"] == pytest.approx(0, abs=1e-5)


def test_only_the_last_answer_of_a_conversation_is_judged():
    history = [*conversations(1)[0]["messages"][:2], {"role": "user", "content": "And then?"}]
    found, _ = encoded([{"prompt": history, "chosen": "It sank.", "rejected": "Nothing."}])
    tokenizer = tiny_tokenizer()
    for document, text in ((found[0].chosen, "It sank.<|im_end|>"), (found[0].rejected, "Nothing.<|im_end|>")):
        learnt = [token for token, learn in zip(document.ids, document.learn, strict=True) if learn]
        assert tokenizer.decode(learnt) == text
    assert collate(found).tensors["owners"].bincount().tolist() == [
        d.counted for d in (found[0].chosen, found[0].rejected)
    ]


def test_pairs_that_are_none_are_named_and_long_ones_left_out():
    with pytest.raises(InputError, match=r"pairs\.jsonl:1: no field 'rejected'"):
        encoded([{"prompt": "a", "chosen": "b"}])
    with pytest.raises(InputError, match=r"pairs\.jsonl:1: chosen and rejected are the same"):
        encoded([{"prompt": "a", "chosen": "b", "rejected": "b"}])
    long = {"prompt": "word " * 80, "chosen": "a", "rejected": "b"}
    found, left_out = encoded([*pairs(), long])
    assert len(found) == 5 and left_out == ["pairs.jsonl:6"]
    with pytest.raises(InputError, match=r"settings\.max_length: every pair is over 96 tokens \(pairs\.jsonl:1\)"):
        encoded([long])


def test_the_recipe_goes_on_from_an_adapter_and_prefers_what_was_chosen(tmp_path, tiny_folder, capsys):
    data = write_lines(tmp_path / "chat.jsonl", conversations(30))
    chosen = write_lines(tmp_path / "pairs.jsonl", pairs())
    small = {"model": str(tiny_folder("qwen2")), "max_length": 64, "batch": {"size": 5}, "epochs": 1}
    few = {"generation": {"examples": 2, "max_new_tokens": 8, "latency_examples": 0}}
    assert run_recipe_here("sft", tmp_path / "sft", {**small, **few, "train": str(data)}) == 0
    adapter = tmp_path / "sft" / "outputs" / "models" / "best"
    settings = {
        **small, **few, "adapter": str(adapter), "train": str(chosen), "epochs": 6, "optimizer": {"learning_rate": 0.01},
    }  # fmt: skip
    assert run_recipe_here("preference", tmp_path / "dpo", settings) == 0
    figures = json.loads((tmp_path / "dpo" / "outputs" / "reports" / "evaluation.json").read_text())["held_out"]
    assert figures["tuned"]["reward_accuracy"] == 1.0 and figures["tuned"]["loss"] < 0.69
    assert figures["before"]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert figures["base"]["loss"] != pytest.approx(math.log(2), abs=1e-4)
    about = json.loads((tmp_path / "dpo" / "outputs" / "models" / "best" / "gpurun.json").read_text())
    assert about["recipe"] == "preference" and about["chat"] is True and about["adapter"] is True
    capsys.readouterr()
    other = {**settings, "model": str(tiny_folder("llama"))}
    assert run_recipe_here("preference", tmp_path / "other", other) == 2
    assert "settings.adapter: " in (said := capsys.readouterr().err) and "was trained on" in said


def test_dpo_begins_at_log_two_whatever_the_adapter_had_learnt_before(tmp_path, tiny_folder):
    """SFT on the chosen answers has moved the adapter far from its base: none of that is DPO's doing."""
    taught = [{"messages": [{"role": "user", "content": pair["prompt"]}, {"role": "assistant", "content": pair["chosen"]}]}
              for pair in pairs()]  # fmt: skip
    data = write_lines(tmp_path / "chat.jsonl", taught)
    chosen = write_lines(tmp_path / "pairs.jsonl", pairs())
    few = {"generation": {"examples": 1, "max_new_tokens": 4, "latency_examples": 0}}
    small = {"model": str(tiny_folder("qwen2")), "max_length": 64, "batch": {"size": 5}, **few}
    sft = {**small, "train": str(data), "validation": str(data), "epochs": 30, "optimizer": {"learning_rate": 0.01}}
    assert run_recipe_here("sft", tmp_path / "sft", sft) == 0
    adapter = str(tmp_path / "sft" / "outputs" / "models" / "best")
    dpo = {**small, "adapter": adapter, "train": str(chosen), "epochs": 8, "evaluation": {"at_start": True},
           "optimizer": {"learning_rate": 0.01}}  # fmt: skip
    assert run_recipe_here("preference", tmp_path / "dpo", dpo) == 0
    outputs = tmp_path / "dpo" / "outputs"
    first = json.loads((outputs / "training_metadata.json").read_text())["training"]["evaluations"][0]
    assert first["step"] == 0
    assert first["metrics"]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert first["metrics"]["reward_margin"] == pytest.approx(0, abs=1e-4)
    assert first["metrics"]["reward_accuracy"] == 0.5
    figures = json.loads((outputs / "reports" / "evaluation.json").read_text())["held_out"]
    assert figures["before"]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert figures["base"]["reward_accuracy"] == 0.0  # SFT had learnt the chosen answers: the base has lost what p₀ has
    assert figures["before"]["reward_accuracy"] == 0.5 and figures["tuned"]["reward_accuracy"] == 1.0
    card = (outputs / "models" / "best" / "README.md").read_text()
    assert "going on from the adapter" in card and "the adapter that this training started from" in card


def test_a_resumed_dpo_still_measures_against_the_adapter_that_it_started_from(tmp_path, tiny_folder):
    data, chosen = write_lines(tmp_path / "chat.jsonl", conversations(12)), write_lines(tmp_path / "p.jsonl", pairs())
    few = {"generation": {"examples": 0}, "max_length": 64, "batch": {"size": 5}, "model": str(tiny_folder("qwen2"))}
    assert run_recipe_here("sft", tmp_path / "sft", {**few, "train": str(data), "epochs": 1}) == 0
    settings = {**few, "adapter": str(tmp_path / "sft" / "outputs" / "models" / "best"), "train": str(chosen), "epochs": 4,
                "optimizer": {"learning_rate": 0.01}}  # fmt: skip
    assert run_recipe_here("preference", tmp_path / "whole", settings) == 0
    assert run_recipe_here("preference", tmp_path / "half", settings) == 0
    assert run_recipe_here("preference", tmp_path / "half", settings, resume="step-000002") == 0
    whole, half = (
        json.loads((tmp_path / name / "outputs" / "reports" / "evaluation.json").read_text())["held_out"]
        for name in ("whole", "half")
    )
    for name in ("base", "before", "tuned"):
        assert half[name] == pytest.approx(whole[name], rel=1e-4, abs=1e-5)


def test_answers_of_equal_rewards_count_as_half_a_preference():
    assert preferred(torch.tensor([0.0, 5e-4, -5e-4, 0.01, -0.01])).tolist() == [0.5, 0.5, 0.5, 1.0, 0.0]


def test_an_answer_may_be_one_message_or_a_conversation_that_begins_with_the_prompt():
    """As data sets on the Hub have them: neither becomes JSON text, and the question is not asked twice."""
    yes, no = {"role": "assistant", "content": "Yes."}, {"role": "assistant", "content": "No."}
    plain, _ = encoded([{"prompt": "Rain?", "chosen": "Yes.", "rejected": "No."}])
    asked = {"role": "user", "content": "Rain?"}
    for chosen, rejected in ((yes, [no]), ([asked, yes], [asked, no]), ([yes], "No.")):
        found, _ = encoded([{"prompt": "Rain?", "chosen": chosen, "rejected": rejected}])
        assert (found[0].chosen, found[0].rejected) == (plain[0].chosen, plain[0].rejected)
