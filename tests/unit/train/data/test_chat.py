import json

import pytest
import torch

from remote_payload.train.data.chat import Format, as_text, encode_examples, end_tokens
from remote_payload.train.data.records import Record
from remote_payload.train.errors import InputError
from remote_payload.train.evaluation.generation import Sampling, generate
from tests.support.models.tiny_models import TOOL_TEMPLATE, tiny_model, tiny_tokenizer

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


CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"town": "Bath", "days": 2}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
WITH_TOOLS = [
    {"role": "user", "content": "Rain in Bath?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "dry"},
    {"role": "assistant", "content": "No rain."},
]


def tokenizer_with(template):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def test_a_tool_call_is_learnt_as_the_template_writes_it_and_the_tools_are_in_the_prompt():
    tokenizer = tokenizer_with(TOOL_TEMPLATE)
    (example,), _ = encode_examples(records({"messages": WITH_TOOLS, "tools": TOOLS}), tokenizer, Format(), 512)
    call = '<tool_call>{"name": "weather", "arguments": {"town": "Bath", "days": 2}}</tool_call><|im_end|>'
    assert learnt_text(tokenizer, example.document) == call + "No rain.<|im_end|>"
    assert json.dumps(TOOLS[0]) in example.prompt and "dry" in example.prompt


def test_an_answer_that_is_a_tool_call_is_compared_as_the_template_writes_it():
    (example,), _ = encode_examples(
        records({"messages": WITH_TOOLS[:2], "tools": TOOLS}), tokenizer_with(TOOL_TEMPLATE), Format(), 512
    )
    assert example.answer == '<tool_call>{"name": "weather", "arguments": {"town": "Bath", "days": 2}}</tool_call>'


def test_arguments_and_tools_may_be_json_text():
    as_text_call = {"function": {"name": "weather", "arguments": json.dumps(CALL["function"]["arguments"])}}
    messages = [WITH_TOOLS[0], {"role": "assistant", "tool_calls": [as_text_call]}]
    tokenizer = tokenizer_with(TOOL_TEMPLATE)
    given = records({"messages": WITH_TOOLS[:2], "tools": TOOLS}, {"messages": messages, "tools": json.dumps(TOOLS)})
    one, other = encode_examples(given, tokenizer, Format(), 512)[0]
    assert one.document == other.document


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (TOOL_TEMPLATE.replace("{% if tools %}", "{% if false %}"), "does not write tools"),
        (
            TOOL_TEMPLATE.replace("message.tool_calls or []", "[]"),
            "does not write the tool call 'weather' of message 2",
        ),
        (
            TOOL_TEMPLATE.replace("call.function |", "call.function.name |"),
            "does not write the arguments of the tool call 'weather' of message 2",
        ),
        (
            TOOL_TEMPLATE.replace(
                "{{ message.content }}", "{% if message.role != 'tool' %}{{ message.content }}{% endif %}"
            ),
            r"does not write a tool's answer \(message 3\)",
        ),
        (
            TOOL_TEMPLATE.replace(
                "message.tool_calls or []", "((message.tool_calls + '') if message.tool_calls else [])"
            ),
            "refuses this conversation",
        ),
    ],
)
def test_a_template_that_cannot_write_tools_is_refused_with_file_and_line(template, message):
    with pytest.raises(InputError, match=rf"data/chat\.jsonl:2: .*{message}"):
        encode_examples(
            records({"messages": CHAT}, {"messages": WITH_TOOLS, "tools": TOOLS}),
            tokenizer_with(template),
            Format(),
            512,
        )


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"role": "assistant", "content": None}, 'message 2 is not {"role"'),
        ({"role": "assistant", "tool_calls": "x"}, "message 2: tool_calls are a list"),
        ({"role": "assistant", "tool_calls": [{"name": 3}]}, "message 2: a tool call is"),
        ({"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]}, "of the call of 'f' are not JSON"),
        (
            {"role": "assistant", "tool_calls": [{"name": "f", "arguments": [1]}]},
            "of the call of 'f' are not an object",
        ),
        ({"role": "assistant", "function_call": {"name": "f"}}, "message 2 has a function_call"),
    ],
)
def test_a_tool_call_of_another_form_is_named_by_file_and_line(message, problem):
    value = {"messages": [CHAT[0], message, CHAT[1]]}
    with pytest.raises(InputError) as error:
        encode_examples(records(value), tokenizer_with(TOOL_TEMPLATE), Format(), 512)
    assert str(error.value).startswith("data/chat.jsonl:1: messages: message 2") and problem in str(error.value)


OPEN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"


def test_a_template_without_an_end_marker_gets_the_end_token_after_each_answer():
    tokenizer = tokenizer_with(OPEN)
    (example,), report = encode_examples(records({"messages": CHAT}), tokenizer, Format(), 512)
    assert learnt_text(tokenizer, example.document) == "The ship <b>é</b>.<|im_end|>In 1823.<|im_end|>"
    assert report.closed == 2 and report.learnt_tokens == sum(example.document.learn)
    _, report = encode_examples(records({"messages": CHAT}), tiny_tokenizer(), Format(), 512)
    assert report.closed == 0


def test_a_model_taught_with_such_a_template_learns_to_stop():
    tokenizer, model = tokenizer_with(OPEN), tiny_model("llama")
    (example,), _ = encode_examples(records({"messages": CHAT[:2]}), tokenizer, Format(), 512)
    ids, targets = torch.tensor([example.document.ids]), torch.tensor([example.document.targets])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(input_ids=ids).logits[0], targets[0], ignore_index=-100)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    prompt = tokenizer(example.prompt, add_special_tokens=False)["input_ids"]
    (answer,) = generate(
        model.eval(), tokenizer, [prompt], Sampling(max_new_tokens=60), end_tokens(tokenizer, Format())
    )
    assert answer.ended and answer.text == CHAT[1]["content"]


def test_an_empty_answer_is_still_one_that_ends():
    tokenizer = tokenizer_with(OPEN)
    messages = [CHAT[0], {"role": "assistant", "content": ""}, CHAT[2], {"role": "assistant", "content": ""}]
    (example,), report = encode_examples(records({"messages": messages}), tokenizer, Format(), 512)
    assert learnt_text(tokenizer, example.document) == "<|im_end|><|im_end|>" and report.closed == 2
    assert tokenizer.decode(example.document.ids).count("assistant: <|im_end|>") == 2


def test_an_answer_that_itself_ends_in_a_special_token_is_closed_by_another():
    messages = [CHAT[0], {"role": "assistant", "content": "It is <|pad|>"}]
    (example,), report = encode_examples(records({"messages": messages}), tokenizer_with(OPEN), Format(), 512)
    assert learnt_text(tiny_tokenizer(), example.document) == "It is <|pad|><|im_end|>" and report.closed == 1


def test_a_first_word_that_shares_its_token_with_the_opening_is_learnt():
    """ " a" is one token, and the prompt ends between its two characters."""
    tokenizer = tokenizer_with(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a ship"}]
    examples, _ = encode_examples(records({"messages": messages}), tokenizer, Format(), 64)
    assert learnt_text(tokenizer, examples[0].document) == " a ship<|im_end|>"
    messages[1]["content"] = ""
    examples, _ = encode_examples(records({"messages": messages}), tokenizer, Format(), 64)
    assert learnt_text(tokenizer, examples[0].document) == "<|im_end|>"
