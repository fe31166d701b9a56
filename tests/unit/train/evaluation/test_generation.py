import pytest
import torch

from remote_payload.train.evaluation import generation
from remote_payload.train.evaluation.generation import Sampling, generate, measure_latency
from tests.support.models.tiny_models import CAUSAL, tiny_model, tiny_tokenizer

PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14], [20], [30, 31, 32]]
GREEDY = Sampling(max_new_tokens=8)


def by_argmax(model, prompt, count, ends):
    """Greedy decoding by its definition: the whole sequence again for every token, no cache, no padding."""
    ids = list(prompt)
    for _ in range(count):
        token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        if token in ends:
            break
        ids.append(token)
    return ids[len(prompt) :]


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("batch_tokens", [12, 10_000])
def test_batches_of_any_size_give_what_greedy_decoding_one_by_one_gives(name, batch_tokens):
    model, tokenizer = tiny_model(name, seed=3), tiny_tokenizer()
    free = by_argmax(model, PROMPTS[0], 8, [])
    ends = [free[4]]  # so that one prompt at least ends by itself
    answers = generate(model, tokenizer, PROMPTS, GREEDY, ends, batch_tokens)
    assert [answer.ids for answer in answers] == [by_argmax(model, prompt, 8, ends) for prompt in PROMPTS]
    assert answers[0].ended and answers[0].ids == free[: free.index(ends[0])]
    assert answers[0].text == tokenizer.decode(answers[0].ids)


def test_rows_times_length_never_exceed_the_budget(monkeypatch):
    shapes = []
    real = generation._generate_batch
    monkeypatch.setattr(
        generation, "_generate_batch", lambda *args: shapes.append([len(prompt) for prompt in args[2]]) or real(*args)
    )
    generate(tiny_model("llama"), tiny_tokenizer(), PROMPTS, GREEDY, [3], 24)
    assert sum(map(len, shapes)) == len(PROMPTS)
    assert all(len(lengths) * (max(lengths) + 8) <= 24 or len(lengths) == 1 for lengths in shapes)
    assert max(map(len, shapes)) > 1


def test_a_long_prompt_never_makes_logits_of_all_its_tokens():
    model, rows = tiny_model("qwen2"), []
    model.lm_head.register_forward_hook(lambda module, inputs, output: rows.append(output.shape[1]))
    generate(model, tiny_tokenizer(), [list(range(5, 205)), list(range(5, 105))], GREEDY, [3])
    assert len(rows) == 8 and set(rows) == {1}


def test_a_model_with_learned_positions_answers_until_the_last_of_them():
    model = tiny_model("gpt2")
    (answer,) = generate(model, tiny_tokenizer(), [[5] * 508], GREEDY, [])
    assert len(answer.ids) == 512 - 508


@pytest.mark.stand_in
def test_a_batch_that_runs_out_of_memory_is_done_in_halves(monkeypatch, capsys):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    expected = generate(model, tokenizer, PROMPTS, GREEDY, [3])
    real = generation._generate_batch

    def small_device(*args):
        if len(args[2]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args)

    monkeypatch.setattr(generation, "_generate_batch", small_device)
    assert generate(model, tokenizer, PROMPTS, GREEDY, [3]) == expected
    assert "5 prompts at once do not fit" in capsys.readouterr().out


def test_sampling_follows_its_seed_and_leaves_trainings_generator_alone():
    model, tokenizer = tiny_model("qwen2"), tiny_tokenizer()
    warm = Sampling(max_new_tokens=8, temperature=0.9, top_p=0.95, seed=1)
    before = torch.get_rng_state()
    first = generate(model, tokenizer, PROMPTS, warm, [3])
    assert torch.equal(torch.get_rng_state(), before)
    assert generate(model, tokenizer, PROMPTS, warm, [3]) == first
    other = Sampling(max_new_tokens=8, temperature=0.9, top_p=0.95, seed=2)
    assert generate(model, tokenizer, PROMPTS, other, [3]) != first


def test_the_jobs_settings_win_over_those_the_model_came_with():
    model, tokenizer = tiny_model("qwen2"), tiny_tokenizer()
    expected = generate(model, tokenizer, PROMPTS, GREEDY, [3])
    model.generation_config.update(do_sample=True, temperature=5.0, top_k=20, top_p=0.8, repetition_penalty=1.9)
    assert generate(model, tokenizer, PROMPTS, GREEDY, [3]) == expected
    penalised = Sampling(max_new_tokens=8, repetition_penalty=10.0)
    for answer in generate(model, tokenizer, PROMPTS, penalised, [3]):
        assert len(set(answer.ids)) == len(answer.ids)


def test_latency_is_of_one_prompt_at_a_time():
    result = measure_latency(tiny_model("llama"), tiny_tokenizer(), PROMPTS, GREEDY, [3])
    assert result["prompts"] == 5
    assert 0 < result["median_ms"] <= result["p95_ms"] <= result["max_ms"]
    assert result["tokens_per_second"] > 0
