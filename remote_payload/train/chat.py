"""Chat messages, or a prompt and its completion, as tokens of which only the assistant's are learnt.

What the assistant said is found in the text that the model's own chat template renders, not by searching for markers: the
template is rendered up to each answer and with it, and what came on top is the answer, its end marker included.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from remote_payload.train.data import Record
from remote_payload.train.errors import InputError
from remote_payload.train.packing import Document

ROLES = ("system", "user", "assistant", "tool")
PLACEHOLDER = re.compile(r"\{(\w+)\}")

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Format:
    """How a record becomes a prompt and an answer: by messages, or by a prompt template and a completion field."""

    messages_field: str = "messages"
    prompt_template: str | None = None
    completion_field: str = "completion"
    system_prompt: str | None = None

    @property
    def chat(self) -> bool:
        return self.prompt_template is None


@dataclass(frozen=True)
class Example:
    """A training document, and the same as a question: the prompt to generate from and the answer to compare with."""

    document: Document
    prompt: str
    answer: str
    record: Record


@dataclass
class EncodingReport:
    """What was cut on the way from records to tokens."""

    examples: int = 0
    tokens: int = 0
    learnt_tokens: int = 0
    truncated: int = 0
    dropped: int = 0  # cut so far that nothing was left to learn
    dropped_places: list[str] = field(default_factory=list)  # the first few of them

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def encode_examples(
    records: Iterable[Record], tokenizer: PreTrainedTokenizerBase, form: Format, max_length: int
) -> tuple[list[Example], EncodingReport]:
    """Examples of at most ``max_length`` tokens, cut at their end, and a report of what was cut.

    Raises InputError with file and line for a record that does not fit the format, and when nothing is left.
    """
    examples, report = [], EncodingReport()
    for record in records:
        example = encode_chat(record, tokenizer, form) if form.chat else encode_completion(record, tokenizer, form)
        kept = Document(example.document.ids[:max_length], example.document.learn[:max_length])
        report.truncated += len(kept) < len(example.document)
        if not kept.counted:
            report.dropped += 1
            report.dropped_places = [*report.dropped_places, record.place][:5]
            continue
        report.examples += 1
        report.tokens += len(kept)
        report.learnt_tokens += kept.counted
        examples.append(Example(kept, example.prompt, example.answer, record))
    if not examples:
        where = ", ".join(report.dropped_places) or "no records"
        raise InputError(f"settings.max_length: {max_length} tokens leave nothing to learn of any example ({where})")
    return examples, report


def encode_chat(record: Record, tokenizer: PreTrainedTokenizerBase, form: Format) -> Example:
    """One conversation: every assistant turn is learnt; the last one is the answer when it is used as a question."""
    messages = read_messages(record, form)
    text = render(tokenizer, messages, record.place)
    spans, prompt = [], ""
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            prompt = render(tokenizer, messages[:index], record.place, answering=True)
            spans.append((len(prompt), _end_of_turn(tokenizer, text, messages[: index + 1], prompt, record.place)))
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    starts = [start for start, _ in encoded["offset_mapping"]]
    learn = [any(begin <= start < end for begin, end in spans) for start in starts]
    answer = next(message["content"] for message in reversed(messages) if message["role"] == "assistant")
    return Example(Document(encoded["input_ids"], learn), prompt, answer, record)


def encode_completion(record: Record, tokenizer: PreTrainedTokenizerBase, form: Format) -> Example:
    """A prompt from the template and the completion after it, closed by the end token.

    The two are tokenized apart, since that is what the model meets when it answers.
    """
    prompt = fill_template(form.prompt_template or "", record)
    answer = as_text(record.field(form.completion_field, object))
    asked = prompt_ids(tokenizer, prompt, add_special_tokens=True)
    said = [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return Example(Document([*asked, *said], [False] * len(asked) + [True] * len(said)), prompt, answer, record)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, add_special_tokens: bool) -> list[int]:
    """A prompt's tokens, open at the end. A chat template has written its special tokens already: none are added then."""
    ids = tokenizer(prompt, add_special_tokens=add_special_tokens)["input_ids"]
    return ids[:-1] if add_special_tokens and ids[-1:] == [tokenizer.eos_token_id] else ids  # some close every text


def check_records(records: Iterable[Record], form: Format) -> None:
    """Raises InputError with file and line for the first record that does not fit the format. Needs no tokenizer."""
    for record in records:
        if form.chat:
            read_messages(record, form)
        else:
            fill_template(form.prompt_template or "", record)
            record.field(form.completion_field, object)


def read_messages(record: Record, form: Format) -> Messages:
    """The record's conversation, checked, with the format's system prompt in front where it has none of its own."""
    messages = record.field(form.messages_field, list)
    for number, message in enumerate(messages, start=1):
        fine = isinstance(message, dict) and message.get("role") in ROLES and isinstance(message.get("content"), str)
        if not fine:
            expected = f'{{"role": one of {", ".join(ROLES)}, "content": text}}'
            raise InputError(f"{record.place}: {form.messages_field}: message {number} is not {expected}")
    if not any(message["role"] == "assistant" for message in messages):
        raise InputError(f"{record.place}: {form.messages_field}: no message of the assistant, so nothing to learn")
    if form.system_prompt is not None and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": form.system_prompt}, *messages]
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def fill_template(template: str, record: Record) -> str:
    """The template with each ``{name}`` replaced by the record's field of that name (JSON where it is not text)."""
    return PLACEHOLDER.sub(lambda match: as_text(record.field(match[1], object)), template)


def as_text(value: Any) -> str:
    """Text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def render(tokenizer: PreTrainedTokenizerBase, messages: Messages, place: str, answering: bool = False) -> str:
    """The chat template's text, with the opening of the assistant's turn at its end if ``answering``.

    Raises InputError with ``place`` when the template refuses the conversation.
    """
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answering)
    except TemplateError as error:
        raise InputError(f"{place}: the model's chat template refuses this conversation: {error}") from None


def end_tokens(tokenizer: PreTrainedTokenizerBase, form: Format) -> list[int]:
    """The tokens at which an answer is over: the tokenizer's end token, and the marker that the template closes a turn with.

    A base model taught to chat needs the second: its end token is another one.
    """
    ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    if form.chat:
        sample = Record({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "-", 1)
        document = encode_chat(sample, tokenizer, Format()).document
        last = max(index for index, learnt in enumerate(document.learn) if learnt)
        if document.ids[last] in tokenizer.all_special_ids:
            ends.append(document.ids[last])
    return sorted(set(ends))


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, text: str, messages: Messages, prompt: str, place: str) -> int:
    """Where in ``text`` the last of ``messages`` ends, the marker that closes it included, blanks after it not."""
    upto = render(tokenizer, messages, place)
    if not (text.startswith(upto) and upto.startswith(prompt)):
        raise InputError(
            f"{place}: the model's chat template changes earlier turns as a conversation goes on, so the assistant's "
            "words cannot be told apart; give settings.chat_template a template that does not"
        )
    return len(upto.rstrip())
