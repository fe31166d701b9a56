"""Trying a checkpoint: the right one is found, prompts are asked as in training, and a base can be tried beside it."""

import io
import json
from dataclasses import asdict

import pytest
import torch

from remote_payload.recipes import sample
from remote_payload.recipes.sample import find_model
from remote_payload.settings.generation import Answering
from remote_payload.settings.sample import SampleOrder, SampleSettings
from remote_payload.settings.training import Lora
from remote_payload.train.download import BaseModel
from remote_payload.train.errors import InputError
from remote_payload.train.folders import complete_folder
from remote_payload.train.inference.asking import as_asked
from remote_payload.train.inference.trying import choose_device, load_trial
from remote_payload.train.model.causal_files import load_network, save_causal
from remote_payload.train.model.lora import add_lora
from remote_payload.train.model.model_facts import write_model_facts
from remote_payload.train.results.checkpoint_model import describe_checkpoint
from tests.support.models.tiny_models import tiny_tokenizer

ABOUT = {"recipe": "finetune", "max_length": 64, "chat": False, "end_tokens": [0]}


@pytest.fixture(scope="module")
def outputs(tiny_folder, tmp_path_factory):
    """Two checkpoints and a finished model of a full fine-tune of the tiny Olmo."""
    from safetensors.torch import save_file

    from remote_payload.train.model.causal import CausalLoss
    from remote_payload.train.state.checkpoint import trained

    folder = tmp_path_factory.mktemp("outputs")
    base = BaseModel(str(tiny_folder("olmo2")), str(tiny_folder("olmo2")))
    network, tokenizer = load_network(base.path), tiny_tokenizer(chat=False)
    for step in (2, 4):
        with torch.no_grad():
            network.lm_head.weight.mul_(1.1)
        with complete_folder(
            folder / "checkpoints" / f"step-{step:06d}", step=step, metrics={"loss": 5.0 - step}
        ) as path:
            save_file(trained(CausalLoss(network)), path / "model.safetensors")
            (path / "state.json").write_text("{}")
            describe_checkpoint(path, network, tokenizer, base, ABOUT)
    with complete_folder(folder / "models" / "best") as path:
        save_causal(network, tokenizer, path, base, ABOUT)
    return folder


@pytest.fixture
def tried(outputs, capsys, monkeypatch):
    """The messages that the module prints for an order and prompts."""

    def run(*prompts, checkpoint="latest", of=outputs, **settings) -> list[dict]:
        answering = Answering(max_new_tokens=8, temperature=settings.pop("temperature", 0.0))
        order = SampleOrder(str(of), checkpoint, SampleSettings(answering=answering, **settings))
        lines = [asdict(order), *({"prompt": prompt} for prompt in prompts)]
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(json.dumps(line) + "\n" for line in lines)))
        code = sample.main()
        ready, *printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert ready == {"ready": True} and code == (2 if "error" in printed[-1] else 0)
        return printed

    return run


def test_the_latest_the_best_and_a_named_one_are_found(outputs):
    assert find_model(outputs, "latest").name == "step-000004"
    assert find_model(outputs, "step-000002").name == "step-000002"
    assert find_model(outputs, "best") == outputs / "models" / "best"


def test_one_that_is_not_there_lists_those_that_are(outputs, tmp_path):
    with pytest.raises(InputError, match="no checkpoint step-9 yet; there are: step-000002, step-000004, best"):
        find_model(outputs, "step-9")
    with pytest.raises(InputError, match="there are: none"):
        find_model(tmp_path, "latest")


def test_a_checkpoint_says_what_the_same_weights_say_as_a_finished_model(tried):
    latest, best, older = (tried("The ship", checkpoint=name) for name in ("latest", "best", "step-000002"))
    assert latest[0]["loaded"] == {
        "model": "step-000004", "kind": "causal_lm", "device": "cpu", "chat": False, "threshold": None, "step": 4,
        "metrics": {"loss": 1.0},
    }  # fmt: skip
    (one,), (other,) = (each[1]["answered"]["answers"] for each in (latest, best))
    assert one["text"] == other["text"] and latest[1]["answered"]["prompt"] == "The ship"
    assert older[0]["loaded"]["step"] == 2


def test_prompts_come_line_by_line_and_the_same_seed_says_the_same(tried):
    _, first, second, third = (
        each.get("answered") for each in tried("The ship", "Who was", "The ship", samples=2, temperature=1.0)
    )
    texts = [[answer["text"] for answer in each["answers"]] for each in (first, second, third)]
    assert texts[0] == texts[2] != texts[1] and len(texts[0]) == 2
    assert all(answer["tokens"] <= 8 for answer in first["answers"])


def test_the_base_is_asked_too_and_a_model_from_nothing_has_none(tried, tiny_folder, tmp_path):
    _, found = tried("The", base=True)
    assert [each["base"] for each in found["answered"]["answers"]] == [True, False]
    with complete_folder(tmp_path / "models" / "best") as path:
        save_causal(load_network(str(tiny_folder("gpt2"))), tiny_tokenizer(chat=False), path, None, ABOUT)
    assert "began with no other model" in tried("The", base=True, of=tmp_path)[-1]["error"]["message"]


def test_an_order_that_makes_no_sense_is_an_error(tried):
    assert "settings.samples: must be at least 1" in tried("x", samples=0)[-1]["error"]["message"]


def test_an_adapter_in_a_checkpoint_is_put_on_its_base(tiny_folder, capsys, tmp_path):
    from safetensors.torch import save_file

    from remote_payload.train.model.causal import CausalLoss
    from remote_payload.train.results.checkpoint_model import load_any
    from remote_payload.train.state.checkpoint import trained

    base = BaseModel("data/olmo", str(tiny_folder("olmo2")))
    network = add_lora(load_network(base.path), Lora(rank=4), "CAUSAL_LM")
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    save_file(trained(CausalLoss(network)), tmp_path / "model.safetensors")
    (tmp_path / "state.json").write_text("{}")
    describe_checkpoint(tmp_path, network, tiny_tokenizer(chat=False), base, ABOUT)
    again, tokenizer = load_any(tmp_path, base.path)
    ids = torch.tensor([tokenizer("The ship")["input_ids"]])
    with torch.no_grad():
        assert torch.allclose(again(ids).logits, network.eval()(ids).logits, atol=1e-6)
        assert not torch.allclose(again(ids).logits, load_network(base.path)(ids).logits, atol=1e-3)


def test_a_model_that_chats_is_asked_in_its_template():
    tokenizer = tiny_tokenizer()
    asked, chat = as_asked(tokenizer, "Hello", {"chat": True, "system_prompt": "Be brief."})
    assert chat and asked.startswith("<|im_start|>system\nBe brief.") and asked.endswith("<|im_start|>assistant\n")
    assert as_asked(tokenizer, "x", {"prompt_template": "Input: {prompt}\nOutput:"}) == ("Input: x\nOutput:", False)
    assert as_asked(tokenizer, "x", {"prompt_template": "{a} and {b}"}) == ("x", False)


def test_a_prompt_longer_than_the_positions_keeps_its_end(tiny_folder, tmp_path):
    tokenizer = tiny_tokenizer(chat=False)
    save_causal(load_network(str(tiny_folder("gpt2"))), tokenizer, tmp_path, None, {**ABOUT, "max_length": 512})
    settings = SampleSettings(answering=Answering(max_new_tokens=4))
    trial = load_trial(tmp_path, settings, torch.device("cpu"), torch.float32)
    assert trial.answer("word " * 900).answers[0].tokens <= 4


@pytest.mark.stand_in
def test_a_gpu_that_is_nearly_full_is_left_to_the_run_that_fills_it(outputs, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    folder = outputs / "models" / "best"
    for free, kind in ((2**30, "cpu"), (40 * 2**30, "cuda")):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda free=free: (free, 80 * 2**30))
        assert choose_device("auto", folder).type == kind
    assert choose_device("cpu", folder).type == "cpu"


@pytest.mark.stand_in
def test_the_base_of_an_adapter_has_to_fit_beside_the_run_too(tiny_folder, tmp_path, monkeypatch):
    """A base of 3 GiB (a sparse file) leaves no room where its adapter alone would."""
    base = tmp_path / "base"
    base.mkdir()
    with (base / "model.safetensors").open("wb") as weights:
        weights.truncate(3 * 2**30)
    write_model_facts(tmp_path, {"base": {"id": "base", "path": str(base)}, "adapter": True})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for free, kind in ((6 * 2**30, "cpu"), (7 * 2**30, "cuda")):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda free=free: (free, 80 * 2**30))
        assert choose_device("auto", tmp_path).type == choose_device("auto", tmp_path, base).type == kind
