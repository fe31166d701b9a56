import json
from types import SimpleNamespace

import pytest
import torch
from transformers import Gemma2Config, PhiConfig
from transformers.models.auto import AutoModelForCausalLM

from remote_payload.train.data.packing import Document, pack
from remote_payload.train.download import BaseModel
from remote_payload.train.errors import InputError
from remote_payload.train.model.causal import CausalLoss
from remote_payload.train.model.causal_files import (
    load_adapter,
    load_causal,
    load_config,
    load_network,
    load_tokenizer,
    save_causal,
)
from remote_payload.train.model.lora import add_lora
from remote_payload.train.model.precision import checkpoint_activations
from tests.support.models.tiny_models import CAUSAL, save_tiny_model, tiny_model, tiny_tokenizer

LORA = SimpleNamespace(rank=4, alpha=8, dropout=0.0, targets="auto")
IDS = [[5, 6, 7, 8, 9, 10], [20, 21, 22, 23]]
BATCH = pack([Document(ids, [True] * len(ids)) for ids in IDS])


@pytest.mark.parametrize("name", CAUSAL)
def test_the_loss_is_transformers_own_summed_over_the_tokens(name):
    model = tiny_model(name)
    expected = sum(
        model(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss * (len(ids) - 1) for ids in IDS
    )
    network = load_network_like(name)
    result = CausalLoss(network)(**BATCH)
    torch.testing.assert_close(result.sum, expected, rtol=1e-5, atol=1e-5)
    assert result.count == 8


def load_network_like(name):
    network = tiny_model(name)
    network.set_attn_implementation("gpurun_packed")
    return network


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapters_move_and_nothing_else_does_with_and_without_activation_checkpointing(name, checkpointing):
    torch.manual_seed(0)
    network = add_lora(load_network_like(name), LORA, "CAUSAL_LM")
    if checkpointing:
        checkpoint_activations(network)
    before = {key: value.clone() for key, value in network.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=0.01)
    CausalLoss(network.train())(**BATCH).sum.backward()
    optimizer.step()
    moved = {key for key, value in network.named_parameters() if not torch.equal(value, before[key])}
    assert moved and all("lora_" in key for key in moved)
    assert {key for key in before if "lora_B" in key} <= moved


@pytest.mark.parametrize("adapted", [True, False])
def test_a_saved_folder_gives_back_the_same_model_with_its_tokenizer_and_template(tmp_path, tiny_folder, adapted):
    base = tiny_folder("qwen2")
    tokenizer = load_tokenizer(str(base), chat=True)
    network = load_network(str(base))
    if adapted:
        network = add_lora(network, LORA, "CAUSAL_LM")
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if "lora_B" in name:
                    parameter.normal_()
    save_causal(network, tokenizer, tmp_path, BaseModel(str(base), str(base)), {"recipe": "sft"})
    about = json.loads((tmp_path / "gpurun.json").read_text())
    assert (about["kind"], about["adapter"], about["base"]["id"]) == ("causal_lm", adapted, str(base))
    for source in (base, None):
        loaded, again = load_causal(tmp_path, source)
        ids = torch.tensor([IDS[0]])
        assert torch.equal(loaded(input_ids=ids).logits, network.eval()(input_ids=ids).logits)
        assert again.chat_template == tokenizer.chat_template
    files = {path.name for path in tmp_path.iterdir()}
    assert not {name for name in files if name.endswith((".bin", ".pt", ".pkl"))}
    assert ("adapter_model.safetensors" in files) is adapted


def test_an_adapter_for_another_base_names_both(tmp_path, tiny_folder):
    network = add_lora(load_network(str(tiny_folder("qwen2"))), LORA, "CAUSAL_LM")
    save_causal(network, tiny_tokenizer(), tmp_path, BaseModel("tiny/qwen2", "here"), {"recipe": "sft"})
    with pytest.raises(InputError, match=r"the adapter was made for .*qwen2.*, not for .*gpt2"):
        load_adapter(load_network(str(tiny_folder("gpt2"))), tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(InputError, match=r"adapter_model\.safetensors is missing"):
        load_adapter(load_network(str(tiny_folder("qwen2"))), tmp_path)


def test_a_tokenizer_without_padding_or_template_names_the_setting_that_helps(tmp_path):
    folder = str(save_tiny_model("llama", tmp_path / "bare", chat=False, pad=False))
    with pytest.raises(InputError, match=r"settings\.pad_token: .*no padding token; name one, for example"):
        load_tokenizer(folder, chat=False)
    with pytest.raises(InputError, match=r"settings\.pad_token: '<nope>' is not in the vocabulary"):
        load_tokenizer(folder, chat=False, pad_token="<nope>")
    with pytest.raises(InputError, match=r"settings\.chat_template: .*no chat template"):
        load_tokenizer(folder, chat=True, pad_token="<|endoftext|>")
    assert load_tokenizer(folder, chat=False, pad_token="<|endoftext|>").pad_token_id == 0
    template = tmp_path / "template.jinja"
    template.write_text("{{ messages[0].content }}")
    with_template = load_tokenizer(folder, chat=True, pad_token="<|endoftext|>", chat_template=str(template))
    assert with_template.chat_template == "{{ messages[0].content }}"
    with pytest.raises(InputError, match=r"settings\.chat_template: .*nowhere\.jinja"):
        load_tokenizer(folder, chat=True, pad_token="<|endoftext|>", chat_template=str(tmp_path / "nowhere.jinja"))


def test_a_model_that_is_not_there_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"^settings\.model: .* cannot be loaded: [^\n]*$"):
        load_config(str(tmp_path))
    with pytest.raises(InputError, match=r"^settings\.model: .* cannot be loaded: [^\n]*$"):
        load_network(str(tmp_path))


@pytest.mark.parametrize("config", [Gemma2Config, PhiConfig])
def test_an_architecture_whose_logits_are_more_than_a_product_is_refused(config):
    shape = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0}
    model = AutoModelForCausalLM.from_config(config(**shape, **heads))
    with pytest.raises(InputError, match=r"settings\.model: (gemma2|phi) models are not supported yet"):
        CausalLoss(model)
