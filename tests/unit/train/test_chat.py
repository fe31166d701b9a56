import pytest

from remote_payload.train.chat import Format, as_text, encode_examples, end_tokens
from remote_payload.train.data import Record
from remote_payload.train.errors import InputError
from tests.support.tiny_models import tiny_tokenizer

CHAT = [
    {"role": "user", "content": "Who sailed from London?"},
    {"role": "assistant", "content": "The ship <b>é</b>."},
    {"role": "user", "content": "When?"},
    {"role": "assistant", "content": "In 1823."},
]
TEMPLATE = 'Extract as JSON, like {"a": 1}.\n\nInput: {prompt}\n\nOutput:'
PAIRS = Format(prompt_template=TEMPLATE, completion_field="expected_output")


def records(*values):
    return [Record(value, "data/chat.jsonl", line) for line, value in enumerate(values, start=1)]


def learnt_text(tokenizer, document):
    return tokenizer.decode([token for token, learn in zip(document.ids, document.learn, strict=True) if learn])


def test_only_the_assistants_words_and_the_marker_that_ends_them_are_learnt():
    tokenizer = tiny_tokenizer()
    (example,), report = encode_examples(records({"messages": CHAT}), tokenizer, Format(), 512)
    assert learnt_text(tokenizer, example.document) == "The ship <b>é</b>.<|im_end|>In 1823.<|im_end|>"
    assert tokenizer.decode(example.document.ids) == tokenizer.apply_chat_template(CHAT, tokenize=False)
    assert report.learnt_tokens == sum(example.document.learn) == example.document.counted
    assert (report.examples, report.truncated, report.dropped) == (1, 0, 0)


def test_a_conversation_is_also_a_question_its_last_answer_left_out():
    tokenizer = tiny_tokenizer()
    (example,), _ = encode_examples(records({"messages": CHAT}), tokenizer, Format(), 512)
    assert example.prompt == tokenizer.apply_chat_template(CHAT[:3], tokenize=False, add_generation_prompt=True)
    assert example.answer == "In 1823."


def test_the_system_prompt_of_the_job_is_used_where_the_conversation_has_none():
    own = [{"role": "system", "content": "Be kind."}, *CHAT]
    form = Format(system_prompt="Be brief.")
    first, second = encode_examples(records({"messages": CHAT}, {"messages": own}), tiny_tokenizer(), form, 512)[0]
    assert "Be brief." in first.prompt
    assert "Be kind." in second.prompt and "Be brief." not in second.prompt


@pytest.mark.parametrize("value", [{"a": [1, {"b": None}]}, ["x", {"y": 2}], "plain text", 17, None, True])
def test_a_completion_of_any_type_is_learnt_as_json_and_closed_by_the_end_token(value):
    tokenizer = tiny_tokenizer(chat=False)
    (example,), _ = encode_examples(records({"prompt": "x", "expected_output": value}), tokenizer, PAIRS, 512)
    assert learnt_text(tokenizer, example.document) == as_text(value) + "<|endoftext|>"
    assert example.prompt == 'Extract as JSON, like {"a": 1}.\n\nInput: x\n\nOutput:'
    assert example.document.ids[: len(tokenizer(example.prompt)["input_ids"])] == tokenizer(example.prompt)["input_ids"]


def test_what_is_cut_and_what_is_left_out_is_counted():
    tokenizer = tiny_tokenizer()
    long_prompt = [{"role": "user", "content": "word " * 100}, CHAT[1]]
    examples, report = encode_examples(
        records({"messages": CHAT}, {"messages": long_prompt}, {"messages": CHAT[:2]}), tokenizer, Format(), 50
    )
    assert [len(example.document) <= 50 for example in examples] == [True, True]
    assert (report.examples, report.truncated, report.dropped) == (2, 2, 1)
    assert report.dropped_places == ["data/chat.jsonl:2"]
    with pytest.raises(InputError, match=r"settings\.max_length: 8 tokens leave nothing to learn.*data/chat\.jsonl:1"):
        encode_examples(records({"messages": long_prompt}), tokenizer, Format(), 8)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"text": "x"}, "no field 'messages'"),
        ({"messages": "hello"}, "field 'messages' is str, expected list"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "messages: message 1 is not"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages: message 1 is not"),
        ({"messages": CHAT[:1]}, "no message of the assistant"),
    ],
)
def test_a_record_that_is_no_conversation_is_named_by_file_and_line(value, message):
    with pytest.raises(InputError, match=rf"data/chat\.jsonl:2: .*{message}"):
        encode_examples(records({"messages": CHAT}, value), tiny_tokenizer(), Format(), 512)


def test_a_missing_field_of_the_prompt_template_is_named_with_those_that_exist():
    with pytest.raises(InputError, match=r"chat\.jsonl:1: no field 'prompt' \(the record has input\)"):
        encode_examples(records({"input": "x"}), tiny_tokenizer(chat=False), PAIRS, 512)


def test_a_conversation_that_the_template_refuses_is_named():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InputError, match=r"chat\.jsonl:1: .*refuses this conversation: roles must alternate"):
        encode_examples(records({"messages": CHAT}), tokenizer, Format(), 512)


def test_a_template_that_rewrites_earlier_turns_is_refused_rather_than_learnt_wrongly():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content if loop.last or m.role == 'user' else '' }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    with pytest.raises(InputError, match=r"changes earlier turns.*settings\.chat_template"):
        encode_examples(records({"messages": CHAT}), tokenizer, Format(), 512)


def test_an_answer_is_over_at_the_end_token_and_at_the_templates_marker():
    base = tiny_tokenizer()
    base.eos_token = "<|endoftext|>"
    assert base.convert_ids_to_tokens(end_tokens(base, Format())) == [
        "<|endoftext|>"
    ]  # im_end is an ordinary token here
    base.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    assert base.convert_ids_to_tokens(end_tokens(base, Format())) == ["<|endoftext|>", "<|im_end|>"]
    assert end_tokens(base, PAIRS) == [base.eos_token_id]
