import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, LlamaConfig, Olmo2Config, Qwen2Config
from transformers.models.auto import AutoModelForCausalLM

from remote_payload.train.data.packing import IGNORED, Document, first_fit_decreasing, pack
from remote_payload.train.model import attention
from remote_payload.train.model.attention import ATTENTION
from remote_payload.train.model.causal import chunked_cross_entropy

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


def varlen_by_definition(query, key, value, bounds, key_bounds, longest, longest_key, scale, left, right):
    """What torch.nn.attention.varlen documents: [T, heads, width], as many heads of each, nothing seen beyond the window."""
    assert query.shape == key.shape == value.shape and torch.equal(bounds, key_bounds)
    assert isinstance(longest, int) and longest == longest_key >= bounds.diff().max()
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    rows = []
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        q, k, v = (each[start:end].transpose(0, 1) for each in (query, key, value))
        distance = torch.arange(end - start)[:, None] - torch.arange(end - start)[None, :]
        seen = (distance >= (-right if right >= 0 else start - end)) & (
            distance <= (left if left >= 0 else end - start)
        )
        scores = (q @ k.transpose(1, 2) * scale).masked_fill(~seen, -torch.inf)
        rows.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(rows)


CALLS = []


def varlen_of_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):
    """Stands for torch 2.10's ``varlen_attn``: its signature, computed by definition."""
    CALLS.append("2.10")
    right = 0 if is_causal else -1
    return varlen_by_definition(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, None, -1, right)


def varlen_of_2_11(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)
):
    """Stands for torch 2.11's."""
    CALLS.append("2.11")
    return varlen_by_definition(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale, *window_size)


def varlen_of_2_13(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1),
    enable_gqa=False, seqused_k=None, block_table=None, num_splits=None,
):  # fmt: skip
    """Stands for the one of torch 2.12 and 2.13."""
    CALLS.append("2.13")
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        assert enable_gqa, "Expect query and key/value to have the same number of heads"
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    return varlen_by_definition(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale, *window_size)


KERNELS = {"2.10": varlen_of_2_10, "2.11": varlen_of_2_11, "2.13": varlen_of_2_13}


@pytest.fixture
def kernel(request, monkeypatch):
    """One of KERNELS in the place of torch's own, as if this were a GPU that has it."""
    CALLS.clear()
    monkeypatch.setattr(attention, "_printed", set(), raising=False)
    monkeypatch.setattr(attention, "varlen_attn", KERNELS[request.param])
    monkeypatch.setattr(attention, "_has_flash_kernel", lambda query, dropout: True)
    return request.param


@pytest.mark.stand_in
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("longest", [None, 64])
@pytest.mark.parametrize("kernel", KERNELS, indirect=True)
def test_the_flash_kernel_of_each_torch_gives_what_the_loop_over_documents_computes(name, longest, kernel):
    reference, model = build(CONFIGS[name], "eager"), build(CONFIGS[name], ATTENTION)
    expected = sum(loss_alone(reference, document) for document in documents())
    found = packed_loss(model, {**pack(documents()), "max_length_q": longest})
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    expected.backward()
    found.backward()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)
    windowed = name == "qwen2 with a sliding window" and kernel == "2.10"
    assert len(CALLS) == (1 if windowed else 2), "a layer that the kernel can do was not given to it"


def attention_alone(query, key, value, scaling, window):
    """Causal attention of one document by its definition."""
    groups, length = query.shape[1] // key.shape[1], query.shape[2]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    distance = torch.arange(length)[:, None] - torch.arange(length)[None, :]
    seen = (distance >= 0) & (distance < (window or length))
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    return (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value).transpose(1, 2)


@pytest.mark.stand_in
@pytest.mark.parametrize("kernel", KERNELS, indirect=True)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    heads=st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1)]),
    scaling=st.sampled_from([None, 8**-0.5, 0.5, 1.0]),
    window=st.one_of(st.none(), st.integers(1, 12)),
    bound=st.sampled_from([None, 9, 20]),
)
def test_any_heads_scale_and_window_give_each_documents_own_attention(kernel, lengths, heads, scaling, window, bound):
    generator = torch.Generator().manual_seed(sum(lengths))
    total, (queries, keys) = sum(lengths), heads
    query, key, value = (
        torch.randn(1, count, total, 8, generator=generator, dtype=torch.float64) for count in (queries, keys, keys)
    )
    bounds = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    found, _ = attention.packed_attention(
        torch.nn.Module(), query, key, value, None,
        scaling=scaling, sliding_window=window, cu_seq_lens_q=bounds, max_length_q=bound,
    )  # fmt: skip
    parts = zip(*(each.split(lengths, dim=2) for each in (query, key, value)), strict=True)
    expected = torch.cat([attention_alone(q, k, v, scaling, window) for q, k, v in parts], dim=1)
    torch.testing.assert_close(found, expected)


@pytest.mark.stand_in
@pytest.mark.parametrize(
    ("kernel", "name", "said"),
    [
        ("2.10", "qwen2 with a sliding window", "varlen_attn takes no window_size"),
        ("2.10", "llama", "heads are repeated, since it takes no enable_gqa"),
        ("2.11", "llama", "heads are repeated, since it takes no enable_gqa"),
        ("2.13", "llama", "a flash kernel\n"),
    ],
    indirect=["kernel"],
)
def test_the_log_says_once_which_attention_is_taken_and_why(kernel, name, said, capsys):
    model = build(CONFIGS[name], ATTENTION)
    for _ in range(2):
        packed_loss(model, pack(documents()))
    lines = capsys.readouterr().out
    assert lines.count(said) == 1 and f"torch {torch.__version__}" in lines


@pytest.mark.stand_in
@pytest.mark.parametrize("kernel", KERNELS, indirect=True)
def test_torch_compile_takes_the_choice_for_a_constant(kernel):
    lengths = [3, 5]
    bounds = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    query, key = torch.randn(1, 4, 8, 8), torch.randn(1, 2, 8, 8)

    def attend(query, key):
        options = {"cu_seq_lens_q": bounds, "max_length_q": 5}
        return attention.packed_attention(torch.nn.Module(), query, key, key, None, **options)[0]

    compiled = torch.compile(attend, backend="eager")
    torch.testing.assert_close(compiled(query, key), attend(query, key))


def test_targets_are_the_next_token_where_it_is_to_be_learnt_and_never_cross_documents():
    batch = pack([Document([10, 11, 12], [True, False, True]), Document([20, 21], [True, True])])
    assert batch["targets"].tolist() == [[IGNORED, 12, IGNORED, 21, IGNORED]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 3, 5]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=60), st.integers(20, 100))
def test_filling_loses_nothing_and_overfills_nothing(lengths, capacity):
    groups = first_fit_decreasing(lengths, capacity)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    assert all(len(group) == 1 or sum(lengths[index] for index in group) <= capacity for group in groups)
    fitting = [length for length in lengths if length <= capacity]
    lower_bound = -(-sum(fitting) // capacity) + len(lengths) - len(fitting)
    assert len(groups) <= 2 * lower_bound + 1
