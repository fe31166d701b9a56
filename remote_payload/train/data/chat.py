"""Chat messages, or a prompt and its completion, as tokens of which only the assistant's are learnt.

What the assistant said is found in the text that the model's own chat template renders, not by searching for markers: the
template is rendered up to each answer and with it, and what came on top is the answer, its end marker included. Where the
template has no such marker the end token is put after each answer, and learnt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from remote_payload.train.data.conversation import Conversation, check_all_is_written, read_conversation, render
from remote_payload.train.data.data import Record
from remote_payload.train.data.packing import Document
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
    """A training document, and the same as a question: the prompt to generate from and the answer to compare with."""

    document: Document
    prompt: str
    answer: str
    record: Record
    closed: int = 0  # answers that the chat template left open, and that got the end token


@dataclass
class EncodingReport:
    """What was cut on the way from records to tokens."""

    examples: int = 0
    tokens: int = 0
    learnt_tokens: int = 0
    truncated: int = 0
    closed: int = 0  # answers that got the end token, since the chat template has no end marker
    dropped: int = 0  # cut so far that nothing was left to learn
    dropped_places: list[str] = field(default_factory=list)  # the first few of them

    def counts(self) -> dict[str, int]:
        """Everything but the places, by name."""
        return {name: count for name, count in asdict(self).items() if isinstance(count, int)}


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
        report.closed += example.closed
        examples.append(replace(example, document=kept))
    if not examples:
        where = ", ".join(report.dropped_places) or "no records"
        raise InputError(f"settings.max_length: {max_length} tokens leave nothing to learn of any example ({where})")
    return examples, report


def encode_chat(record: Record, tokenizer: PreTrainedTokenizerBase, form: Format) -> Example:
    """One conversation: every assistant turn is learnt; the last one is the answer when it is used as a question."""
    conversation = read_conversation(record, form.messages_field, form.system_prompt)
    check_all_is_written(tokenizer, conversation)
    text = render(tokenizer, conversation)
    bounds, prompt, last = [], "", {}
    for index, message in enumerate(conversation.messages):
        if message["role"] == "assistant":
            prompt, last = render(tokenizer, conversation.before(index), answering=True), message
            end = _end_of_turn(tokenizer, text, conversation.before(index + 1), prompt)
            own = message["content"].rstrip()  # an answer may itself end in "<|pad|>": that closes nothing
            bare = bool(own) and text[:end].endswith(own) and not message.get("tool_calls")
            bounds.append((len(prompt), end, bare))
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, spans = encoded["input_ids"], encoded["offset_mapping"]
    document, closed = _learn(ids, spans, bounds, tokenizer)
    answer = last["content"]
    if last.get("tool_calls"):  # as the model has to write it
        said = [token for token, (start, _) in zip(ids, spans, strict=True) if start >= bounds[-1][0]]
        answer = tokenizer.decode(said, skip_special_tokens=True).rstrip()
    return Example(document, prompt, answer, record, closed)


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
    ids: list[int] = tokenizer(prompt, add_special_tokens=add_special_tokens)["input_ids"]
    return ids[:-1] if add_special_tokens and ids[-1:] == [tokenizer.eos_token_id] else ids  # some close every text


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


def _learn(
    ids: list[int],
    spans: list[tuple[int, int]],
    bounds: list[tuple[int, int, bool]],
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[Document, int]:
    """The document in which what lies in ``bounds`` of the text is learnt, and how many answers got the end token after them.

    ``bounds`` are the beginning and the end of each answer, and whether nothing but its own words stands there.

    A template that closes no answer would teach the model to go on for ever, since it never sees one end.
    """
    open_at: set[int] = set()
    learnt: set[int] = set()
    for begin, end, bare in bounds:
        ends = {tokenizer.eos_token_id} if bare else {tokenizer.eos_token_id, *tokenizer.all_special_ids}
        # A first word may share its token with what stands before it: " Ada" of "assistant: Ada" is learnt too.
        said = [
            at for at, (start, stop) in enumerate(spans) if start < end and (begin <= start or begin < min(stop, end))
        ]
        learnt.update(said)
        if not said or ids[said[-1]] not in ends:
            open_at.add(said[-1] + 1 if said else sum(start < begin for start, _ in spans))
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
    """Where in ``text`` the last of these turns ends, the marker that closes it included, blanks after it not."""
    upto = render(tokenizer, turns)
    if not (text.startswith(upto) and upto.startswith(prompt)):
        raise InputError(
            f"{turns.place}: the model's chat template changes earlier turns as a conversation goes on, so the assistant's "
            "words cannot be told apart; give settings.chat_template a template that does not"
        )
    return max(len(upto.rstrip()), len(prompt))
