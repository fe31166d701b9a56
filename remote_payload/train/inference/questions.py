"""The examples that language models are asked about: read once, then put to each model in the form that it was trained on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from remote_payload.settings.evaluate import EvaluateSettings
from remote_payload.train.data.chat import (
    PLACEHOLDER,
    Format,
    as_text,
    encode_all,
    fill_template,
    prompt_ids,
)
from remote_payload.train.data.conversation import Conversation, Message, render
from remote_payload.train.data.packing import Document
from remote_payload.train.data.records import Record, find_files, read_json, read_records
from remote_payload.train.data.structured import EVALUATIONS, read_structured
from remote_payload.train.data.structured import Example as Completion
from remote_payload.train.errors import InputError
from remote_payload.train.evaluation.evaluation_sets import encode
from remote_payload.train.model.model_facts import Prompting

SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".txt")
PROMPT = "prompt"


@dataclass(frozen=True)
class Item:
    """One example of the data. ``answer`` is the right one, ``right`` all of them as text; both empty for a prompt alone.

    ``plain``: prompt and answer are one running text, as in the evaluation sets of ``finetune``.
    """

    id: str
    set: str
    record: Record
    answer: Any = None
    right: tuple[str, ...] = ()
    plain: bool = False


@dataclass(frozen=True)
class Question:
    """An item as one model gets it: the prompt as text and tokens, and the document whose answer's tokens count in the loss."""

    item: Item
    prompt: str
    ids: list[int]
    right: tuple[str, ...]
    document: Document | None


def read_items(settings: EvaluateSettings) -> list[Item]:
    """The first ``settings.examples`` examples. Raises InputError with file and line."""
    found: list[Item] = []
    for file in find_files(settings.data, "data", SUFFIXES):
        for item in _read_file(file, settings):
            if len(found) == settings.examples:
                return found
            found.append(item)
    if not found:
        raise InputError(f"{settings.data} holds no examples")
    return found


def data_files(settings: EvaluateSettings) -> list[str]:
    """The files of the data, in order."""
    return find_files(settings.data, "data", SUFFIXES)


def _read_file(file: str, settings: EvaluateSettings) -> Iterator[Item]:
    top = settings.data if os.path.isdir(settings.data) else os.path.dirname(settings.data)
    name = os.path.relpath(file, top or ".")
    if file.endswith(".txt"):
        yield from _text_lines(file, name, settings)
    elif file.endswith(".json") and os.path.getsize(file) and _is_structured(file):
        for title, questions in read_structured(file).evaluations.items():
            for index, each in enumerate(questions):
                record = Record({settings.prompt_field: each.prompt}, file, index)
                yield Item(f"{title}[{index}]", title, record, each.completion, (each.completion,), plain=True)
    else:
        for record in read_records(file):
            yield _item(record, f"{name}:{record.line}", settings)


def _text_lines(file: str, name: str, settings: EvaluateSettings) -> Iterator[Item]:
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 ({error.reason} at byte {error.start})") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield Item(f"{name}:{number}", "", Record({settings.prompt_field: line}, file, number))


def _is_structured(file: str) -> bool:
    """Whether the file is one structured dataset; other ``.json`` files are an array of records, or a record a line."""
    with open(file, "rb") as source, mmap(source.fileno(), 0, access=ACCESS_READ) as content:
        if content.find(f'"{EVALUATIONS}"'.encode()) < 0:
            return False
    try:
        value = read_json(file)
    except InputError:  # a record a line
        return False
    return isinstance(value, dict) and EVALUATIONS in value


def _item(record: Record, identity: str, settings: EvaluateSettings) -> Item:
    title = record.value.get(settings.set_field)
    answer = record.value.get(settings.answer_field)
    several = isinstance(answer, list) and not settings.json_answers
    if several and not answer:
        raise InputError(f"{record.place}: field {settings.answer_field!r} is an empty list of right answers")
    right = () if answer is None else tuple(map(as_text, answer if several else [answer]))
    return Item(identity, title if isinstance(title, str) else "", record, answer, right)


def form_of(
    settings: EvaluateSettings, prompting: Prompting | None, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item]
) -> Format:
    """How the items are put to a model: what the settings say, else how it was trained, else by its chat template if it has one.

    Raises InputError where the data is conversations and the tokenizer has no chat template.
    """
    conversations = settings.messages_field in items[0].record.value
    told = prompting or {}
    template = settings.prompt_template
    if template is None and not conversations:
        template = told.get("prompt_template")
        if template is None and not (told.get("chat") or (not told and tokenizer.chat_template)):
            template = "{" + PROMPT + "}"
    if template is None and not tokenizer.chat_template:
        raise InputError(
            "the data is conversations, and this model's tokenizer has no chat template; give prompt_template "
            "(--prompt-template) and prompts with answers instead"
        )
    return Format(settings.messages_field, template, "completion", told.get("system_prompt"))


def questions_for(
    items: Sequence[Item], tokenizer: PreTrainedTokenizerBase, form: Format, settings: EvaluateSettings, limit: int
) -> list[Question]:
    """The items as this model gets them; a document is cut after ``limit`` tokens. Raises InputError with file and line."""
    answered = iter(_encoded([item for item in items if _has_answer(item, form)], tokenizer, form, settings, limit))
    return [
        next(answered) if _has_answer(item, form) else _prompt_alone(item, tokenizer, form, settings) for item in items
    ]


def _has_answer(item: Item, form: Format) -> bool:
    messages = item.record.value.get(form.messages_field)
    talks = form.chat and isinstance(messages, list) and any(_is_answer(each) for each in messages[-1:])
    return bool(item.right) or talks


def _is_answer(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") == "assistant"


def _encoded(
    items: Sequence[Item], tokenizer: PreTrainedTokenizerBase, form: Format, settings: EvaluateSettings, limit: int
) -> Iterator[Question]:
    plain = [item for item in items if item.plain]
    if plain:  # a file is all of this kind, or none of it
        texts = [Completion(_prompt_of(item, settings), item.right[0]) for item in plain]
        for item, document in zip(plain, encode(texts, tokenizer, limit, ending=False), strict=True):
            given = [token for token, learnt in zip(document.ids, document.learn, strict=True) if not learnt]
            yield Question(item, _prompt_of(item, settings), given, item.right, _counting(document))
        return
    records = [_as_trained(item, form, settings) for item in items]
    for item, example in zip(items, encode_all(records, tokenizer, form), strict=True):
        ids = prompt_ids(tokenizer, example.prompt, add_special_tokens=not form.chat)
        document = Document(example.document.ids[:limit], example.document.learn[:limit])
        yield Question(item, example.prompt, ids, item.right or (example.answer,), _counting(document))


def _counting(document: Document) -> Document | None:
    return document if document.counted else None


def _as_trained(item: Item, form: Format, settings: EvaluateSettings) -> Record:
    """The record as a conversation, or with the fields of the template and the completion."""
    record = item.record
    if not form.chat:
        return replace(record, value={**_template_fields(item, form, settings), "completion": item.right[0]})
    if form.messages_field in record.value:
        return record
    turns = [
        {"role": "user", "content": _prompt_of(item, settings)},
        {"role": "assistant", "content": item.right[0]},
    ]
    return replace(record, value={form.messages_field: turns})


def _template_fields(item: Item, form: Format, settings: EvaluateSettings) -> dict[str, Any]:
    """The record's fields; where its template has one place and the record no such field, the prompt is meant."""
    fields, places = dict(item.record.value), set(PLACEHOLDER.findall(form.prompt_template or ""))
    if len(places) == 1 and not places & set(fields):
        fields[places.pop()] = _prompt_of(item, settings)
    return fields


def _prompt_alone(item: Item, tokenizer: PreTrainedTokenizerBase, form: Format, settings: EvaluateSettings) -> Question:
    """A prompt without a right answer: nothing is compared, and there is no loss."""
    if form.chat:
        system: list[Message] = [{"role": "system", "content": form.system_prompt}] if form.system_prompt else []
        turns = item.record.value.get(form.messages_field)
        asked: list[Message] = (
            list(turns) if isinstance(turns, list) else [{"role": "user", "content": _prompt_of(item, settings)}]
        )
        own = any(message.get("role") == "system" for message in asked)
        conversation = Conversation([*([] if own else system), *asked], None, item.record.place)
        prompt = render(tokenizer, conversation, answering=True)
    else:
        prompt = fill_template(
            form.prompt_template or "", replace(item.record, value=_template_fields(item, form, settings))
        )
    return Question(item, prompt, prompt_ids(tokenizer, prompt, add_special_tokens=not form.chat), (), None)


def _prompt_of(item: Item, settings: EvaluateSettings) -> str:
    prompt: str = item.record.field(settings.prompt_field)
    return prompt
