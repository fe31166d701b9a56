from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[4] / "jobs" / "demo" / "prepare.py"


@pytest.fixture(scope="module")
def prepare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    subprocess.run([sys.executable, str(SCRIPT), str(folder)], check=True, timeout=120)
    return folder


def rows(folder: Path, side: str) -> list[dict[str, str]]:
    return [
        json.loads(line) for line in (folder / "data/text" / f"{side}.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def test_both_sides_have_both_classes_in_equal_parts(built: Path) -> None:
    for side, least in (("train", 100), ("validation", 30)):
        counts = Counter(row["label"] for row in rows(built, side))
        assert set(counts) == {"legal", "other"} and sum(counts.values()) >= least
        assert max(counts.values()) <= 1.2 * min(counts.values())


def test_no_distribution_and_no_copied_passage_is_on_both_sides(built: Path, prepare: ModuleType) -> None:
    train, validation = rows(built, "train"), rows(built, "validation")
    assert not {row["source"] for row in train} & {row["source"] for row in validation}
    kept = [prepare.word_triples(row["text"]) for row in train]
    for row in validation:
        triples = prepare.word_triples(row["text"])
        assert all(len(triples & other) <= prepare.SAME * min(len(triples), len(other)) for other in kept), row["text"]


def test_the_same_machine_gives_the_same_files(built: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], check=True, timeout=120)
    for side in ("train", "validation"):
        name = f"data/text/{side}.jsonl"
        assert (tmp_path / name).read_bytes() == (built / name).read_bytes()


def test_the_encoder_lies_beside_the_text(built: Path) -> None:
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= {p.name for p in (built / "data/minilm").iterdir()}


def test_of_two_licences_with_another_name_in_them_one_stays(prepare: ModuleType) -> None:
    words = "Permission is hereby granted free of charge to any person obtaining a copy of this software and its documentation"
    copies = [{"text": f"Copyright {name}. {words}", "label": "legal", "source": name} for name in ("Ada", "Grace")]
    other = {"text": "A quick start: install the package, import it and call run", "label": "other", "source": "x"}
    assert list(prepare.without_copies([*copies, other])) == [copies[0], other]


def test_passages_are_a_few_hundred_characters_of_words(prepare: ModuleType) -> None:
    text = "\n\n".join(
        ["A paragraph of plain words that goes on for a while."] * 30 + ["0x00 1234 | ---- | 99 ## 77 %% 12 " * 20]
    )
    passages = list(prepare.cut(text))
    assert passages and all(prepare.SHORTEST - 60 <= len(passage) <= prepare.LONGEST for passage in passages)
    assert not any("0x00 1234" in passage for passage in passages)
