"""Chat messages, or a prompt and its completion, as tokens of which only the assistant's are learnt.

The assistant's answers are found in the text that the model's own chat template renders, not by searching for markers: the
template is rendered up to each answer and again with it, and the difference is the answer with its end marker. If the
template has no end marker, the end token is put after each answer and learnt.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from remote_payload.train.data.batching import AT_ONCE, batches_of
from remote_payload.train.data.conversation import Conversation, check_all_is_written, read_conversation, render
from remote_payload.train.data.packing import Document
from remote_payload.train.data.records import Record
from remote_payload.train.errors import InputError

PLACEHOLDER = re.compile(r"\{(\w+)\}")


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
    """A training document, and the same as a question: the prompt to generate from and the expected answer."""

    document: Document
    prompt: str
    answer: str
    record: Record
    closed: int = 0  # answers for which the chat template has no end marker, so that they got the end token


class AnswerSpan(NamedTuple):
    """Begin and end of an answer in the rendered text."""

    begin: int
    end: int
    no_marker: bool  # the span is the answer's own words, without an end marker after them


@dataclass
class EncodingReport:
    """How many examples and tokens came of the records, and how many examples were truncated or dropped."""

    examples: int = 0
    tokens: int = 0
    learnt_tokens: int = 0
    truncated: int = 0
    closed: int = 0  # answers that got the end token, since the chat template has no end marker
    dropped: int = 0  # the part that remains after truncation has nothing to learn
    dropped_places: list[str] = field(default_factory=list)  # file:line of the first few

    def counts(self) -> dict[str, int]:
        """Everything but the places, by name."""
        return {name: count for name, count in asdict(self).items() if isinstance(count, int)}


def encode_examples(
    records: Sequence[Record],
    tokenizer: PreTrainedTokenizerBase,
    form: Format,
    max_length: int,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[list[Example], EncodingReport]:
    """Examples of at most ``max_length`` tokens, truncated at their end, and a report on them.

    ``say`` is told about every ten seconds how many records are done. Raises InputError with file and line for a record
    that does not fit the format, and when no example has anything to learn.
    """
    examples, report = [], EncodingReport()
    said = time.monotonic()
    for done, example in enumerate(encode_all(records, tokenizer, form)):
        if time.monotonic() - said > 10:
            said = time.monotonic()
            say(f"tokenising: {done:,} of {len(records):,} records")
        kept = Document(example.document.ids[:max_length], example.document.learn[:max_length])
        report.truncated += len(kept) < len(example.document)
        if not kept.counted:
            report.dropped += 1
            report.dropped_places = [*report.dropped_places, example.record.place][:5]
            continue
        report.examples += 1
        report.tokens += len(kept)
        report.learnt_tokens += kept.counted
        report.closed += example.closed
        examples.append(replace(example, document=kept))
    if not examples:
        where = ", ".join(report.dropped_places) or "no records"
        raise InputError(f"settings.max_length: {max_length} tokens leave nothing to learn of any example ({where})")
    return examples, report


def encode_all(records: Iterable[Record], tokenizer: PreTrainedTokenizerBase, form: Format) -> Iterator[Example]:
    """Each record as an example, in order. The tokenizer gets many texts at once, which it encodes on all cores.

    Raises InputError with file and line for a record that does not fit the format.
    """
    write, encode = (write_chat, _encode_chats) if form.chat else (write_completion, _encode_completions)
    written = (write(record, tokenizer, form) for record in records)
    for batch in batches_of(written, lambda each: len(each.text), AT_ONCE):
        yield from encode(batch, tokenizer)


class Written(NamedTuple):
    """A record as text: a whole conversation with the places of the answers in it, or a prompt and the completion after it."""

    text: str
    prompt: str
    answer: str
    record: Record
    answers: list[AnswerSpan]
    calls: bool  # the last answer is tool calls: it is the text that the model has to write for them


def write_chat(record: Record, tokenizer: PreTrainedTokenizerBase, form: Format) -> Written:
    """One conversation: every assistant turn is learnt; the last one is the answer when it is used as a question."""
    conversation = read_conversation(record, form.messages_field, form.system_prompt)
    check_all_is_written(tokenizer, conversation)
    text = render(tokenizer, conversation)
    answers: list[AnswerSpan] = []
    prompt = ""
    for index, message in enumerate(conversation.messages):
        if message["role"] == "assistant":
            prompt, last = render(tokenizer, conversation.before(index), answering=True), message
            end = _end_of_turn(tokenizer, text, conversation.before(index + 1), prompt)
            own = message["content"].rstrip()  # an answer may itself end in "<|pad|>": that is no end marker
            no_marker = bool(own) and text[:end].endswith(own) and not message.get("tool_calls")
            answers.append(AnswerSpan(len(prompt), end, no_marker))
    return Written(text, prompt, last["content"], record, answers, bool(last.get("tool_calls")))


def write_completion(record: Record, tokenizer: PreTrainedTokenizerBase, form: Format) -> Written:
    """A prompt from the template, and the completion after it."""
    prompt = fill_template(form.prompt_template or "", record)
    answer = as_text(record.field(form.completion_field, object))
    return Written(prompt + answer, prompt, answer, record, [], calls=False)


def _encode_chats(batch: Sequence[Written], tokenizer: PreTrainedTokenizerBase) -> Iterator[Example]:
    encoded = tokenizer([each.text for each in batch], add_special_tokens=False, return_offsets_mapping=True)
    for each, ids, spans in zip(batch, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        document, closed = _learn(ids, spans, each.answers, tokenizer)
        answer = each.answer
        if each.calls:
            written = [token for token, (start, _) in zip(ids, spans, strict=True) if start >= each.answers[-1].begin]
            answer = tokenizer.decode(written, skip_special_tokens=True).rstrip()
        yield Example(document, each.prompt, answer, each.record, closed)


def _encode_completions(batch: Sequence[Written], tokenizer: PreTrainedTokenizerBase) -> Iterator[Example]:
    """The prompt and the completion after it, closed by the end token.

    The two are tokenized separately, as they are when the model answers a prompt.
    """
    prompts = tokenizer([each.prompt for each in batch], add_special_tokens=True)["input_ids"]
    answers = tokenizer([each.answer for each in batch], add_special_tokens=False)["input_ids"]
    for each, prompt, answer in zip(batch, prompts, answers, strict=True):
        given, learnt = _without_end(prompt, tokenizer), [*answer, tokenizer.eos_token_id]
        document = Document([*given, *learnt], [False] * len(given) + [True] * len(learnt))
        yield Example(document, each.prompt, each.answer, each.record)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, add_special_tokens: bool) -> list[int]:
    """A prompt's tokens, without an end token. For a chat template's text no special tokens are added: it has them already."""
    ids: list[int] = tokenizer(prompt, add_special_tokens=add_special_tokens)["input_ids"]
    return _without_end(ids, tokenizer) if add_special_tokens else ids


def _without_end(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return ids[:-1] if ids[-1:] == [tokenizer.eos_token_id] else ids  # some tokenizers end every text


def check_records(records: Iterable[Record], form: Format) -> None:
    """Raises InputError with file and line for the first record that does not fit the format. Needs no tokenizer."""
    for record in records:
        if form.chat:
            read_conversation(record, form.messages_field, form.system_prompt)
        else:
            fill_template(form.prompt_template or "", record)
            record.field(form.completion_field, object)


def fill_template(template: str, record: Record) -> str:
    """The template with each ``{name}`` replaced by the record's field of that name (JSON where it is not text)."""
    return PLACEHOLDER.sub(lambda match: as_text(record.field(match[1], object)), template)


def as_text(value: Any) -> str:
    """Text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def end_tokens(tokenizer: PreTrainedTokenizerBase, form: Format) -> list[int]:
    """The tokens at which an answer ends: the tokenizer's end token, and the marker with which the template ends a turn.

    A base model that was taught to chat needs the second: its tokenizer's end token is another one.
    """
    ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    if form.chat:
        sample = Record({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "-", 1)
        (example,) = encode_all([sample], tokenizer, Format())
        document = example.document
        last = max(index for index, learnt in enumerate(document.learn) if learnt)
        if document.ids[last] in tokenizer.all_special_ids:
            ends.append(document.ids[last])
    return sorted(set(ends))


def _learn(
    ids: list[int],
    spans: list[tuple[int, int]],
    answers: Sequence[AnswerSpan],
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[Document, int]:
    """The document in which the tokens of ``answers`` are learnt, and how many answers got the end token after them.

    ``spans`` are the begin and end of each token in the text. Without an end token the model would never see an answer end, and
    would learn to go on for ever.
    """
    open_at: set[int] = set()  # positions at which an end token has to be put in
    learnt: set[int] = set()
    for begin, end, no_marker in answers:
        ends = {tokenizer.eos_token_id} if no_marker else {tokenizer.eos_token_id, *tokenizer.all_special_ids}
        # A first word may share its token with the text before it: " Ada" of "assistant: Ada" is learnt too.
        inside = [
            at for at, (start, stop) in enumerate(spans) if start < end and (begin <= start or begin < min(stop, end))
        ]
        learnt.update(inside)
        if not inside or ids[inside[-1]] not in ends:
            open_at.add(inside[-1] + 1 if inside else sum(start < begin for start, _ in spans))
    out, learn = [], []
    for at in range(len(ids) + 1):
        if at in open_at:
            out.append(tokenizer.eos_token_id)
            learn.append(True)
        if at < len(ids):
            out.append(ids[at])
            learn.append(at in learnt)
    return Document(out, learn), len(open_at)


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, text: str, turns: Conversation, prompt: str) -> int:
    """Where in ``text`` the last of these turns ends: after its end marker, but before the blanks that follow."""
    beginning = render(tokenizer, turns)
    if not (text.startswith(beginning) and beginning.startswith(prompt)):
        raise InputError(
            f"{turns.place}: the model's chat template changes earlier turns as a conversation goes on, so the assistant's "
            "words cannot be told apart; give settings.chat_template a template that does not"
        )
    return max(len(beginning.rstrip()), len(prompt))
