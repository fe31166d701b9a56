"""Texts with labels, for a classifier: read, checked, split into two sides, tokenised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from remote_payload.settings.classify import ClassifySettings
from remote_payload.train.data.batching import AT_ONCE, batches_of
from remote_payload.train.data.facts import DataFile
from remote_payload.train.data.records import Record, find_files, read_all, split
from remote_payload.train.errors import InputError

Label = int | str


@dataclass
class Example:
    """A text and its class, as an index into the labels."""

    text: str
    label: int


@dataclass
class LabelledTexts:
    """Both sides of the split, the classes in order, and the files that were read."""

    train: list[Example]
    validation: list[Example]
    labels: list[Label]
    files: list[DataFile]

    def counts(self) -> list[int]:
        """Training examples of each class."""
        found = Counter(example.label for example in self.train)
        return [found[index] for index in range(len(self.labels))]


def read_labelled_texts(settings: ClassifySettings) -> LabelledTexts:
    """Reads and splits the data that the settings name.

    Raises InputError, with file and line or the setting, for a field that is missing, a label outside the classes, an empty side,
    or a single class.
    """
    train, files = read_all(find_files(settings.train, "train"))
    if not train:
        raise InputError(f"settings.train: {settings.train!r} holds no examples")
    if settings.validation:
        validation, more = read_all(find_files(settings.validation, "validation"))
        files += more
    else:
        train, validation = _hold_out(train, settings)
    for name, side in (("train", train), ("validation", validation)):
        if not side:
            raise InputError(f"settings.{name}: {getattr(settings, name)!r} holds no examples")
    labels = settings.labels or _labels_of(train, settings.label_field)
    if len(labels) < 2:
        raise InputError(
            f"settings.label_field: all of train has the one class {labels[0]!r}; there is nothing to tell apart"
        )
    index = {label: position for position, label in enumerate(labels)}
    examples = [[_example(record, settings, index) for record in side] for side in (train, validation)]
    return LabelledTexts(examples[0], examples[1], labels, files)


def _hold_out(records: list[Record], settings: ClassifySettings) -> tuple[list[Record], list[Record]]:
    """Training and validation side: a random part that the seed decides. With group_field a whole group goes to one side."""
    if settings.group_field is None:
        return split(records, settings.validation_share, settings.seed, "validation_share")
    kinds = (int, str)
    groups = list(dict.fromkeys(record.field(settings.group_field, kinds) for record in records))
    held_out = set(split(groups, settings.validation_share, settings.seed, "validation_share")[1])
    inside = [record.value[settings.group_field] in held_out for record in records]
    train = [record for record, held in zip(records, inside, strict=True) if not held]
    return train, [record for record, held in zip(records, inside, strict=True) if held]


def _label(record: Record, field: str) -> Label:
    value: Any = record.field(field, (int, str, float))
    if isinstance(value, float):
        if not value.is_integer():
            raise InputError(f"{record.place}: field {field!r} is {value}, not a class")
        return int(value)
    label: Label = value
    return label


def _labels_of(records: Sequence[Record], field: str) -> list[Label]:
    found = {_label(record, field) for record in records}
    if len({type(label) for label in found}) > 1:
        raise InputError(f"settings.label_field: {field!r} holds both numbers and text; give settings.labels")
    if len(found) > 1000:
        raise InputError(f"settings.label_field: {field!r} has {len(found)} different values; that is not a class")
    return sorted(found)


def _example(record: Record, settings: ClassifySettings, index: dict[Label, int]) -> Example:
    label = _label(record, settings.label_field)
    if label not in index:
        known = ", ".join(repr(known)[:40] for known in list(index)[:12]) + (" …" if len(index) > 12 else "")
        raise InputError(
            f"{record.place}: label {repr(label)[:80]} is not one of the classes {known} (settings.labels)"
        )
    text = record.field(settings.text_field)
    if not text.strip():
        raise InputError(f"{record.place}: field {settings.text_field!r} is empty")
    return Example(text, index[label])


@dataclass
class Tokenised:
    """Token ids of each text, truncated to the limit; ``truncated`` is how many texts were longer."""

    ids: list[list[int]]
    labels: list[int]
    truncated: int

    @property
    def lengths(self) -> list[int]:
        return [len(row) for row in self.ids]


def tokenise(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Tokenised:
    """Texts to token ids with the tokenizer's own special tokens, a few megabytes of text at once on all cores."""
    ids: list[list[int]] = []
    truncated = 0
    for batch in batches_of(examples, lambda example: len(example.text), AT_ONCE):
        encoded = tokenizer([example.text for example in batch], truncation=True, max_length=max_length)
        ids += encoded["input_ids"]
        truncated += sum(bool(encoding.overflowing) for encoding in encoded.encodings)
    return Tokenised(ids, [example.label for example in examples], truncated)
