"""Which files of a model's folder are published, and which stay here."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from remote_payload.publish.problem import PublishProblem
from remote_payload.publish.report import LeftOut
from remote_payload.publish.scrub import Scrubber

CARD = "README.md"
ENDINGS = (".safetensors", ".gguf", ".json", ".jsonl", ".txt", ".model", ".jinja", ".md")
NAMES = ("Modelfile", "LICENSE", "LICENCE", "NOTICE")
WEIGHTS = (".safetensors", ".gguf")
# Files that only a run itself needs. Its state may go on from them; a model is used without.
OF_A_RUN = ("manifest.json", "state.json", "trainer_state.json", "optimizer.safetensors", "rng_state.safetensors")
# JSON that libraries look words up in: not a word of it may change.
VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json")
LARGEST_TEXT = 64 << 20  # bytes; a larger vocabulary is published without having been read
LARGEST_HEADER = 100 << 20  # bytes of a safetensors header


def is_checkpoint(folder: Path) -> bool:
    """Whether training goes on from this folder of gpurun's: its weights then have names that no other library knows."""
    return (folder / "state.json").is_file()


@dataclass(frozen=True)
class PublishedFile:
    """A file as it will lie in the repository. ``content`` is what is published instead of the file at ``source``, where they differ."""

    path: str
    source: Path | None
    size: int
    content: bytes | None = None


@dataclass(frozen=True)
class Part:
    """A folder whose files go below ``prefix`` ("" or a name with a slash). An ``addition`` lies beside the model; of it only the
    files whose names end so are looked at, where ``endings`` are given."""

    folder: Path
    prefix: str = ""
    addition: bool = False
    endings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contents:
    """All of one publication."""

    files: tuple[PublishedFile, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def with_card(self, card: str) -> Contents:
        """The same with this text as README.md."""
        raw = card.encode()
        others = [file for file in self.files if file.path != CARD]
        files = sorted([*others, PublishedFile(CARD, None, len(raw), raw)], key=lambda file: file.path)
        return Contents(tuple(files), self.left_out)


def gather(parts: Sequence[Part], scrubber: Scrubber, *, public: bool) -> Contents:
    """The files to publish, local paths and secrets taken out of those that describe the model.

    With ``public`` the rows for the smoke test are left out: they are the user's data. Raises PublishProblem for a folder without
    weights, and for a secret or a path of this machine in a file that cannot be changed.
    """
    files: dict[str, PublishedFile] = {}
    left_out: list[LeftOut] = []
    for part in parts:
        weights = False
        for name in _names(part.folder):
            if part.endings and not name.endswith(part.endings):
                continue
            reason = _reason(part, name, public)
            path = part.prefix + name
            if reason is None and path in files:
                reason = "another file has this name"
            if reason:
                left_out.append(LeftOut(path, reason))
                continue
            files[path] = _published(part.folder / name, path, scrubber)
            weights = weights or name.endswith(WEIGHTS)
        if not weights:
            raise PublishProblem(
                f"there are no weights in {part.folder}",
                meaning="Weights are files that end in .safetensors or .gguf. A pickle (.bin, .pt) is never published.",
                hint="Name the folder of a model, such as models/best of a fetched run.",
            )
    return Contents(tuple(sorted(files.values(), key=lambda file: file.path)), tuple(left_out))


def _names(folder: Path) -> Iterator[str]:
    """Paths of all files below ``folder``, hidden ones and folders left out; links are followed for files only."""
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield (Path(here) / name).relative_to(folder).as_posix()


def _reason(part: Part, name: str, public: bool) -> str | None:
    last = name.rpartition("/")[2]
    if not (part.folder / name).is_file():
        return "no regular file"
    if last in OF_A_RUN or last.startswith("optimizer"):
        return "of the run itself"
    if part.addition and last == CARD:
        return "the card of the model describes it"
    if not last.endswith(ENDINGS) and not last.startswith(NAMES):
        return "not a kind of file that a model needs"
    if public and name.startswith("smoke/"):
        return "rows of your data, and the repository is public"
    return None


def _published(source: Path, path: str, scrubber: Scrubber) -> PublishedFile:
    size = source.stat().st_size
    if path.endswith(WEIGHTS):
        if path.endswith(".safetensors") and scrubber.finds(_notes_of_weights(source)):
            raise _unclean(path)
        return PublishedFile(path, source, size)
    if size > LARGEST_TEXT:
        return PublishedFile(path, source, size)
    raw = source.read_bytes()
    try:
        text = raw.decode()
        kept = _scrubbed(text, path, scrubber)
    except ValueError:
        raise PublishProblem(
            f"{path} cannot be read: it is not UTF-8, or not JSON", hint="Repair or remove it."
        ) from None
    if kept is None:
        raise _unclean(path)
    return (
        PublishedFile(path, source, size)
        if kept == text
        else PublishedFile(path, source, len(kept.encode()), kept.encode())
    )


def _scrubbed(text: str, path: str, scrubber: Scrubber) -> str | None:
    """The text as it is published; None where something would have to go from a file that must stay as it is."""
    name = path.rpartition("/")[2]
    if name.endswith(".md"):
        return scrubber.text(text)
    if not name.endswith(".json") or name in VOCABULARIES or path.startswith("smoke/"):
        return None if scrubber.finds(text) else text
    value = json.loads(text)
    template = value.pop("chat_template", None) if isinstance(value, dict) else None
    if template is not None and scrubber.finds(json.dumps(template, ensure_ascii=False)):
        return None
    kept = scrubber.value(value)
    if kept == value:
        return text
    return (
        json.dumps(kept | ({"chat_template": template} if template is not None else {}), indent=2, ensure_ascii=False)
        + "\n"
    )


def _notes_of_weights(path: Path) -> str:
    """The free text in the header of a safetensors file, "" where there is none."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= LARGEST_HEADER:
            raise PublishProblem(f"{path.name} is no safetensors file, or it is incomplete", hint="Fetch it again.")
        try:
            header = json.loads(file.read(length))
        except ValueError:
            raise PublishProblem(
                f"{path.name} is no safetensors file, or it is damaged", hint="Fetch it again."
            ) from None
    return "\n".join(map(str, header.get("__metadata__", {}).values())) if isinstance(header, dict) else ""


def _unclean(path: str) -> PublishProblem:
    return PublishProblem(
        f"{path} holds a secret, or a path of this machine",
        meaning="Nothing was published: this file cannot be changed without changing the model.",
        hint="Look into it, take that out (and revoke a token that stood there), and repeat.",
    )
