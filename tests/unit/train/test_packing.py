import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, LlamaConfig, Olmo2Config, Qwen2Config
from transformers.models.auto import AutoModelForCausalLM

from remote_payload.train import packing
from remote_payload.train.losses import IGNORED, chunked_cross_entropy
from remote_payload.train.packing import ATTENTION, Document, fill, pack

SHAPE = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SPECIAL = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
CONFIGS = {
    "qwen2": Qwen2Config(**SHAPE, **SPECIAL, num_key_value_heads=2),
    "qwen2 with a sliding window": Qwen2Config(
        **SHAPE, **SPECIAL, num_key_value_heads=2, use_sliding_window=True, sliding_window=4, max_window_layers=1
    ),
    "llama": LlamaConfig(**SHAPE, **SPECIAL, num_key_value_heads=2),
    "olmo2": Olmo2Config(**SHAPE, **SPECIAL),
    "gpt2": GPT2Config(
        vocab_size=97,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        attn_pdrop=0,
        resid_pdrop=0,
        embd_pdrop=0,
        **SPECIAL,
    ),
}
LENGTHS = [7, 1, 12, 2]


def build(config, attention):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention)


def documents():
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(3, 97, (length,), generator=generator).tolist() for length in LENGTHS]
    return [Document(each, [index % 3 != 1 for index in range(len(each))]) for each in ids]


def loss_alone(model, document):
    """The definition: the document by itself, whole logits, transformers' own attention."""
    logits = model(input_ids=torch.tensor([document.ids])).logits[0]
    return F.cross_entropy(logits.float(), torch.tensor(document.targets), ignore_index=IGNORED, reduction="sum")


def packed_loss(model, batch):
    inputs = {name: value for name, value in batch.items() if name != "targets"}
    hidden = model.get_decoder()(**inputs, use_cache=False).last_hidden_state
    return chunked_cross_entropy(hidden, model.get_output_embeddings().weight, batch["targets"]).sum


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_loss_and_gradients_equal_those_of_the_documents_alone(name, checkpointing):
    reference, model = build(CONFIGS[name], "eager"), build(CONFIGS[name], ATTENTION)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.train()
    expected = sum(loss_alone(reference, document) for document in documents())
    found = packed_loss(model, pack(documents()))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    expected.backward()
    found.backward()
    pairs = zip(model.named_parameters(), reference.parameters(), strict=True)
    for (parameter, ours), theirs in pairs:
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5, msg=lambda m, p=parameter: f"{p}: {m}")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_change_in_one_document_moves_no_other(name):
    model = build(CONFIGS[name], ATTENTION).eval()
    before = documents()
    after = [Document([5] * len(before[0]), before[0].learn), *before[1:]]
    outputs = []
    for each in (before, after):
        inputs = {name: value for name, value in pack(each).items() if name != "targets"}
        outputs.append(model(**inputs).logits[0])
    first = LENGTHS[0]
    assert torch.equal(outputs[0][first:], outputs[1][first:])
    assert not torch.allclose(outputs[0][:first], outputs[1][:first])


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_model_takes_padded_batches_and_generates_as_with_transformers_own_attention(name):
    reference, model = build(CONFIGS[name], "sdpa").eval(), build(CONFIGS[name], ATTENTION).eval()
    ids = torch.tensor([[2, 2, 5, 6, 7], [8, 9, 10, 11, 12]])
    mask = (ids != 2).long()
    options = {"attention_mask": mask, "max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    assert torch.equal(model.generate(ids, **options), reference.generate(ids, **options))


def varlen_by_definition(query, key, value, bounds, key_bounds, longest, _, *, scale, window_size, enable_gqa):
    """What torch.nn.attention.varlen documents: [T, heads, width], causal for a right window of 0, left of any width."""
    assert enable_gqa and torch.equal(bounds, key_bounds) and longest >= bounds.diff().max()
    groups = query.shape[1] // key.shape[1]
    rows = []
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        q = query[start:end].transpose(0, 1)
        k, v = (each[start:end].transpose(0, 1).repeat_interleave(groups, 0) for each in (key, value))
        distance = torch.arange(end - start)[:, None] - torch.arange(end - start)[None, :]
        left, right = window_size
        seen = (distance >= -right) & (distance <= (left if left >= 0 else end - start))
        scores = (q @ k.transpose(1, 2) * scale).masked_fill(~seen, -torch.inf)
        rows.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(rows)


@pytest.mark.stand_in
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("longest", [None, 64])
def test_the_flash_kernel_is_asked_for_what_the_loop_over_documents_computes(monkeypatch, name, longest):
    model, batch = build(CONFIGS[name], ATTENTION).eval(), pack(documents())
    expected = packed_loss(model, batch)
    monkeypatch.setattr(packing, "varlen_attn", varlen_by_definition)
    monkeypatch.setattr(packing, "_has_flash_kernel", lambda query, dropout: True)
    torch.testing.assert_close(packed_loss(model, {**batch, "max_length_q": longest}), expected, rtol=1e-5, atol=1e-5)


def test_targets_are_the_next_token_where_it_is_to_be_learnt_and_never_cross_documents():
    batch = pack([Document([10, 11, 12], [True, False, True]), Document([20, 21], [True, True])])
    assert batch["targets"].tolist() == [[IGNORED, 12, IGNORED, 21, IGNORED]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 3, 5]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=60), st.integers(20, 100))
def test_filling_loses_nothing_and_overfills_nothing(lengths, capacity):
    groups = fill(lengths, capacity)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    assert all(len(group) == 1 or sum(lengths[index] for index in group) <= capacity for group in groups)
    fitting = [length for length in lengths if length <= capacity]
    lower_bound = -(-sum(fitting) // capacity) + len(lengths) - len(fitting)
    assert len(groups) <= 2 * lower_bound + 1
