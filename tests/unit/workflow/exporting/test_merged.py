"""``export --merged``: what is written predicts what the model predicted; what would not is refused or removed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from runner.domain.errors import ArtifactError, SmokeTestFailed, UserError
from runner.domain.progress import Silent
from runner.local_model.messages import ExportRequest
from runner.local_model.worker import export as worker
from runner.workflow.exporting.export import Export, Wanted, export
from tests.support.models.card_snippets import Task, run_without_gpurun, snippet_of
from tests.support.models.exported import call_instead_of_a_process, peft_adapter, spoil
from tests.support.models.plain_adapter import causal_adapter, classifier_adapter
from tests.support.models.smoke_models import causal_run, classifier_run
from tests.support.models.tiny_models import CORPUS, save_tiny_model

BUILD: dict[str, Callable[[Path], Path]] = {
    "bert with LoRA": lambda root: classifier_run(root, "bert"),
    "gemma3 with LoRA": lambda root: classifier_run(root, "gemma3"),
    "qwen2 with LoRA": causal_run,
    "whole qwen2": lambda root: causal_run(root, adapter=False),
    "an adapter of the Trainer's": lambda root: causal_adapter(
        save_tiny_model("llama", root / "base"), root / "mine", list(CORPUS), ["q_proj", "down_proj"]
    ),
    "a sequence classifier's adapter": lambda root: classifier_adapter(
        save_tiny_model("bert", root / "base"),
        root / "mine",
        [(text, at % 3) for at, text in enumerate(CORPUS)],
        ["query"],
    ),
    "head of its own": lambda root: peft_adapter(root, "llama", ["v_proj", "lm_head"], tied=False),
}


@pytest.fixture(scope="module")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = BUILD[name](tmp_path_factory.mktemp("model"))
        return made[name]

    return get


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    call_instead_of_a_process(monkeypatch)


def merged(folder: Path, into: Path, dtype: str | None = None) -> Export:
    """What one export makes, typed where the base is found as ``base``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parents[1] if folder.name == "best" else folder.parent)
        (made,) = export(folder, None, Wanted(into, dtype=dtype), Silent())
    return made


@pytest.mark.parametrize("dtype", [None, "bfloat16", "float16"])
@pytest.mark.parametrize("name", BUILD)
def test_what_is_written_loads_as_a_whole_and_predicts_the_same(
    model_of: Callable[[str], Path], name: str, dtype: str | None, tmp_path: Path
) -> None:
    folder = model_of(name)
    made = merged(folder, tmp_path / "out", dtype)
    assert (made.form, made.path, made.weights) == ("merged", tmp_path / "out/merged", dtype or "float32")
    assert made.by_box == (folder / "smoke").is_dir()
    assert (made.merged_layers > 0) == (name != "whole qwen2")
    weights = load_file(made.path / "model.safetensors")
    assert not any("lora" in each for each in weights)
    assert {str(each.dtype) for each in weights.values()} == {f"torch.{made.weights}"}
    assert [each.name for each in made.path.parent.iterdir()] == ["merged"]
    difference = (transformers_alone(made.path) - load_file(made.path / "smoke/expected.safetensors")["logits"]).abs()
    assert difference.max() <= made.comparison.limit
    if dtype is None:
        assert made.comparison.limit < 0.01 and made.comparison.agree == made.comparison.answers


def transformers_alone(folder: Path) -> torch.Tensor:
    """The logits of the smoke test's rows, without a line of gpurun's."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    rows = [json.loads(line) for line in (folder / "smoke/inputs.jsonl").read_text().splitlines()]
    found = []
    for row in rows:
        with torch.no_grad():
            if "prompt" in row:
                network: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
                found.append(network(**ids_of(tokenizer, row["prompt"])).logits[0, -1])
            elif not (folder / "head.safetensors").is_file():
                network = AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32")
                found.append(network(**ids_of(tokenizer, row["text"])).logits[0])
            else:
                network, head = (
                    AutoModel.from_pretrained(folder, dtype="float32"),
                    load_file(folder / "head.safetensors"),
                )
                hidden = network(**ids_of(tokenizer, row["text"])).last_hidden_state
                found.append(head["weight"] @ hidden[0].mean(0) + head["bias"])
    return torch.stack(found)


def test_its_readme_has_python_that_predicts_the_same_without_gpurun(
    model_of: Callable[[str], Path], tmp_path: Path
) -> None:
    asked = {
        "bert with LoRA": "found = logits_of({}).tolist()",
        "qwen2 with LoRA": "found = [answer(each, 12) for each in {}]",
    }
    folders = {name: merged(model_of(name), tmp_path / name).path for name in asked}
    tasks = {
        name: Task(folder.parent, snippet_of(folder), asked[name].format(repr(texts(folder))), offline=True)
        for name, folder in folders.items()
    }
    answers = run_without_gpurun(tasks, tmp_path)
    classifier, language_model = ((folder, answers[name]["found"]) for name, folder in folders.items())
    expected = load_file(classifier[0] / "smoke/expected.safetensors")["logits"]
    torch.testing.assert_close(torch.tensor(classifier[1]), expected, atol=1e-4, rtol=1e-4)
    tokens = load_file(language_model[0] / "smoke/expected.safetensors")["tokens"]
    assert language_model[1] == AutoTokenizer.from_pretrained(language_model[0]).batch_decode(tokens)


def texts(folder: Path) -> list[str]:
    """What the smoke test of a model asks."""
    rows = [json.loads(line) for line in (folder / "smoke/inputs.jsonl").read_text().splitlines()]
    return [row.get("prompt", row.get("text")) for row in rows]


def ids_of(tokenizer: Any, text: str) -> dict[str, torch.Tensor]:
    """At most as many tokens as the classifiers of these tests read."""
    return {"input_ids": tokenizer(text, return_tensors="pt", truncation=True, max_length=64)["input_ids"]}


@pytest.mark.parametrize("name", ["bert with LoRA", "qwen2 with LoRA", "an adapter of the Trainer's"])
@pytest.mark.parametrize(("dtype", "matrices"), [(None, 1), ("bfloat16", 8)])  # its limit is a hundred times wider
@pytest.mark.parametrize("seed", range(3))
def test_wrong_weights_do_not_pass_and_nothing_of_them_stays(
    model_of: Callable[[str], Path], name: str, dtype: str | None, matrices: int, seed: int,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    real = worker.export

    def wrong(request: ExportRequest, send: Any) -> Any:
        answer = real(request, send)
        spoil(request.into, seed, matrices)
        return answer

    monkeypatch.setattr(worker, "export", wrong)
    with pytest.raises(SmokeTestFailed, match="the whole model does not predict what"):
        merged(model_of(name), tmp_path / "out", dtype)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mistake", ["left out", "twice"])
def test_a_wrong_merge_does_not_pass(
    model_of: Callable[[str], Path], mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(network: Any) -> Any:
        if mistake == "left out":
            return network.unload()
        network.merge_adapter()
        for layer in network.modules():
            if hasattr(layer, "merged_adapters"):
                layer.merged_adapters.clear()
        return network.merge_and_unload()

    monkeypatch.setattr(worker, "_merged", wrong)
    with pytest.raises(SmokeTestFailed):
        merged(model_of("qwen2 with LoRA"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("targets", [["lm_head"], ["embed_tokens", "q_proj"]])
def test_an_adapter_on_tied_embeddings_is_refused_before_anything_is_written(
    targets: list[str], tmp_path: Path
) -> None:
    folder = peft_adapter(tmp_path, "llama", targets, tied=True)
    with pytest.raises(ArtifactError, match="one matrix for embeddings and output head"):
        merged(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_adapter_than_a_lora_and_an_encoder_are_refused(tmp_path: Path) -> None:
    folder = peft_adapter(tmp_path, "llama", ["q_proj"], tied=False)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "peft_type": "PROMPT_TUNING"}))
    encoder = save_tiny_model("bert", tmp_path / "encoder")
    for place, why in ((folder, "'PROMPT_TUNING'; only a LoRA"), (encoder, "encoder without a head")):
        with pytest.raises(UserError, match=why):
            merged(place, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_overwritten_and_other_files_stay(model_of: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    made = merged(model_of("whole qwen2"), tmp_path / "out")
    before = (made.path / "model.safetensors").stat()
    with pytest.raises(UserError, match="is there already"):
        merged(model_of("whole qwen2"), tmp_path / "out", "bfloat16")
    assert (made.path / "model.safetensors").stat() == before
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["merged", "mine.txt"]
