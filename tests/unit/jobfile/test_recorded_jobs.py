"""Any legal job, of any recipe or of none, survives being recorded: it is read back as it was, and can be resumed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from remote_payload.settings import RECIPES
from runner import hub, jobfile, store
from runner.domain.progress import Silent
from runner.domain.run import Run
from runner.jobfile.schema import json_schema
from runner.workflow.resume import job_of
from runner.workflow.submission import access

SCHEMA = json_schema()
TEXTS = ["data", "two\nlines\tand a tab", "naïve 日本 😀", "x" * 5000, "\u2028\x85", "{prompt}", "\\", "'\""]
KEPT = {
    "metric": "loss",
    "chat_template": "data/rows.jsonl",
    "revision": "main",
    "resume": "auto",
    "tokenizer": "org/tokens",
    "model": "org/model",
}


def drawn(schema: dict[str, Any], chance: random.Random, name: str = "") -> Any:
    """A value that the schema allows."""
    if "$ref" in schema:
        return drawn(SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]], chance, name)
    if "anyOf" in schema:
        return drawn(chance.choice(schema["anyOf"]), chance, name)
    if "const" in schema or "enum" in schema:
        return schema.get("const") or chance.choice(schema["enum"])
    kind = schema.get("type")
    if kind == "object":
        needed, fields = schema.get("required", []), schema.get("properties", {})
        return {key: drawn(fields[key], chance, key) for key in fields if key in needed or chance.random() < 0.6}
    if kind == "array":
        return [drawn(schema["items"], chance) for _ in range(chance.randint(0, 3))]
    if kind in ("integer", "number"):
        low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        high = schema.get("maximum", schema.get("exclusiveMaximum", low + 10))
        return (
            chance.randint(int(low) + 1, int(high)) if kind == "integer" else round(chance.uniform(low, high), 4) or 0.5
        )
    if kind == "boolean":
        return chance.random() < 0.5
    return None if kind == "null" else KEPT.get(name) or chance.choice(TEXTS)


def settings_of(recipe: str, chance: random.Random) -> dict[str, Any]:
    """Settings that ``recipe`` allows, with one data file for all data."""
    values: dict[str, Any] = drawn(SCHEMA["$defs"][f"settings-{recipe}"], chance)
    for name in ("train", "validation", "test", "dataset", "corpus", "adapter"):
        if values.get(name) is not None:
            values[name] = "data"
    if labels := values.get("labels"):
        values["labels"] = list(dict.fromkeys(labels))
    return values


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "home"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text("{}\n")
    return tmp_path


@pytest.mark.parametrize("recipe", [*RECIPES, None])
def test_a_job_is_read_back_as_it_was_recorded(recipe: str | None, folder: Path) -> None:
    legal, refused = 0, []
    for seed in range(40):
        chance = random.Random(seed)
        job: dict[str, Any] = {"name": "any", "data": ["data"]}
        if recipe:
            job |= {"recipe": recipe, "settings": settings_of(recipe, chance)}
        else:
            job |= {"command": ["bash", "-c", *chance.choices(TEXTS, k=2)], "outputs": ["results/best", "log.txt"]}
        if chance.random() < 0.5:
            job["smoke_test"] = {"enabled": chance.random() < 0.5, "tolerance": {"cpu": 0.5}}
        if chance.random() < 0.5:
            job["environment"] = {"variables": {"A": chance.choice(TEXTS)}}
        (folder / "job.json").write_text(json.dumps(job))
        try:
            checked = jobfile.load(folder / "job.json")
        except jobfile.InvalidJobFile as error:
            refused.append(str(error.problems[0]))
            continue
        legal += 1
        run = Run(f"any-20260102-142030-{seed:04x}", checked, "local", 1e9)
        store.create(run)
        assert store.load(run.run_id) == run, job
        assert store.load(run.run_id).job.wire() == checked.wire()
        assert job_of(run, ()).settings == checked.settings
    assert legal >= 15, refused


def test_a_model_that_is_described_and_not_named_takes_no_part_in_what_is_asked_of_the_hub(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """settings.model of pretrain is a shape, and settings.tokenizer a model of the Hub."""
    text = "name: a\nrecipe: pretrain\ndata: [data]\nsettings: {corpus: data, tokenizer: org/tokens}\n"
    (folder / "job.yaml").write_text(text)
    job, asked = jobfile.load(folder / "job.yaml"), []
    answer = (SimpleNamespace(name="me", token=None), None)
    monkeypatch.setattr(hub, "require_access", lambda models, *_, **__: asked.extend(models) or answer)
    access.require(job, Silent())
    assert asked == [("org/tokens", None)]
