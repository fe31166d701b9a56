"""What the worker finds in good and in damaged models. Called here without its process (tests/integration has that)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from remote_payload.train.errors import InputError
from runner.local_model.compare import Comparison, allowed_difference, compare
from runner.local_model.lines import message_line, read_message
from runner.local_model.messages import Message, Progress, SmokeResult
from runner.local_model.model_folder import read_model_folder
from runner.local_model.worker import Refused
from runner.local_model.worker.predict import bucketed
from runner.local_model.worker.smoke import smoke
from runner.workflow.inference.smoke import smoke_request
from tests.support.models.smoke_models import LABELS, change_tensor, flip_bit
from tests.support.models.tiny_models import CORPUS, save_tiny_model

RunOf = Callable[[str], Path]
EVERY_RUN = ["bert", "gemma3", "qwen2", "qwen2-recipe", "qwen2-full"]


def ask(root: Path, *, device: str = "cpu", inputs: Path | None = None, dtype: str = "float32") -> SmokeResult:
    """The worker's result for ``models/best`` of a run, or for a plain folder."""
    folder = root / "models/best" if (root / "models/best").is_dir() else root
    model = read_model_folder(folder)
    base = root / "base" if model.adapter else None
    sent: list[Message] = []
    result = smoke(smoke_request(model, base, dtype, device, inputs), sent.append)
    assert isinstance(sent[-1], Progress) and sent[-1].done == sent[-1].total == result.predictions.samples
    read = read_message(message_line(result))
    assert read == result  # as it is after the pipe
    return result


def verdict(root: Path, **options: Any) -> Comparison:
    measured = ask(root, **options).predictions.comparison
    assert measured
    return compare(measured, allowed_difference(("float32", options.get("dtype", "float32")), "cpu", measured.scale))


@pytest.mark.parametrize("name", EVERY_RUN)
def test_what_the_box_trained_says_the_same_here(run_of: RunOf, name: str) -> None:
    result = ask(run_of(name))
    predictions = result.predictions
    found = predictions.comparison
    assert found
    judged = compare(found, allowed_difference(("float32",), "cpu", found.scale))
    assert not judged.problems
    assert judged.agree == judged.answers > 0
    assert predictions.samples == len(CORPUS) and predictions.seconds > 0 and result.peak_memory > 1e7
    assert result.device == "cpu"


def test_labels_are_counted(run_of: RunOf) -> None:
    counts = ask(run_of("gemma3")).predictions.counts
    assert counts is not None and len(counts) == len(LABELS) and sum(counts) == len(CORPUS)


@pytest.mark.parametrize(
    ("name", "file", "tensor"),
    [
        ("bert", "model.safetensors", "layer.1.output.dense.weight"),
        ("bert", "head.safetensors", "weight"),
        ("gemma3", "adapter_model.safetensors", "layers.1.self_attn.v_proj.lora_B"),
        ("qwen2", "adapter_model.safetensors", "layers.0.self_attn.v_proj.lora_B"),
        ("qwen2-full", "model.safetensors", "layers.1.mlp.down_proj.weight"),
    ],
)
def test_a_bit_flipped_in_a_weight_is_found(run_of: RunOf, name: str, file: str, tensor: str) -> None:
    root = run_of(name)
    flip_bit(root / "models/best" / file, tensor)
    try:
        assert verdict(root).problems
    except Refused as refused:  # 2^127 and more overflow on the way
        assert "NaN or infinity" in str(refused)


def test_weights_of_another_training_are_found(run_of: RunOf) -> None:
    root = run_of("gemma3")
    change_tensor(root / "models/best/head.safetensors", "weight", lambda tensor: tensor.mul_(1.02))
    found = verdict(root)
    assert "differs by" in found.problems[0] and f"row {found.worst_row}" in found.problems[0]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("bert", "model.safetensors"),
        ("bert", "head.safetensors"),
        ("gemma3", "adapter_model.safetensors"),
        ("qwen2", "adapter_model.safetensors"),
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(run_of: RunOf, name: str, file: str, value: float) -> None:
    root = run_of(name)
    change_tensor(root / "models/best" / file, "weight", lambda tensor: tensor.view(-1)[0].fill_(value))
    with pytest.raises(Refused, match=r"the weight \S+ holds NaN or infinity"):
        ask(root)


def test_overflow_on_the_way_is_refused_with_its_row(run_of: RunOf) -> None:
    root = run_of("bert")
    change_tensor(root / "models/best/head.safetensors", "weight", lambda tensor: tensor.fill_(3e38))
    with pytest.raises(Refused, match=r"this machine's predictions hold NaN or infinity \(row \d"):
        ask(root)


def test_nan_in_the_boxs_own_predictions_is_no_pass(run_of: RunOf) -> None:
    root = run_of("bert")
    change_tensor(
        root / "models/best/smoke/expected.safetensors", "logits", lambda tensor: tensor[2].fill_(float("nan"))
    )
    with pytest.raises(Refused, match=r"the box's own predictions hold NaN or infinity \(row 3\)"):
        ask(root)


@pytest.mark.parametrize(
    ("name", "spoil", "complaint"),
    [
        ("bert", lambda tensors: {}, "no logits"),
        ("bert", lambda tensors: {"logits": tensors["logits"][:-1]}, "no logits for the 7 inputs"),
        ("bert", lambda tensors: {"logits": tensors["logits"][:, :1].contiguous()}, r"predicted \[7, 1\] logits"),
        ("bert", lambda tensors: {"logits": tensors["logits"].flatten()}, "no logits"),
        ("qwen2", lambda tensors: {"logits": tensors["logits"]}, "no tokens"),
        ("qwen2", lambda tensors: {**tensors, "tokens": tensors["tokens"] + 10**9}, "predicted token"),
        ("qwen2", lambda tensors: {**tensors, "tokens": torch.zeros(7, 5000, dtype=torch.long)}, "ask for 5000 tokens"),
    ],
)
def test_predictions_that_fit_nothing_are_refused(
    run_of: RunOf, name: str, spoil: Callable[[Any], Any], complaint: str
) -> None:
    from safetensors.torch import load_file, save_file

    root = run_of(name)
    file = root / "models/best/smoke/expected.safetensors"
    save_file(spoil(load_file(file)), file)
    with pytest.raises(Refused, match=complaint):
        ask(root)


def test_an_adapter_with_weights_missing_is_refused(run_of: RunOf) -> None:
    from safetensors.torch import load_file, save_file

    root = run_of("qwen2")
    file = root / "models/best/adapter_model.safetensors"
    tensors = load_file(file)
    del tensors[sorted(tensors)[0]]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match="does not fit its base model: 1 weights differ"):
        ask(root)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has Metal")
def test_metal_that_is_not_there_is_a_failure_and_auto_takes_what_is(run_of: RunOf) -> None:
    root = run_of("bert")
    with pytest.raises(Refused, match=r"no Metal \(MPS\) on this machine, so nothing was tested") as refused:
        ask(root, device="mps")
    assert "--device auto" in refused.value.hint
    assert ask(root, device="auto").device in ("cpu", "cuda")


def test_bf16_here_is_within_the_limit_for_bf16(run_of: RunOf) -> None:
    found = verdict(run_of("qwen2-full"), dtype="bfloat16")
    assert not found.problems
    assert found.difference > 0


def test_ones_own_inputs_are_answered_and_compared_with_nothing(run_of: RunOf, tmp_path: Path) -> None:
    inputs = tmp_path / "mine.jsonl"
    inputs.write_text(json.dumps({"text": "one"}) + "\n" + json.dumps({"text": "two " * 500}) + "\n")
    result = ask(run_of("bert"), inputs=inputs).predictions
    assert result.samples == 2 and result.comparison is None and result.counts
    assert [each.label in LABELS for each in result.labelled] == [True, True]
    assert all(1 / len(LABELS) <= each.probability <= 1 for each in result.labelled)
    for label, count in zip(LABELS, result.counts, strict=True):
        assert sum(each.label == label for each in result.labelled) == count


@pytest.mark.parametrize("line", ["{", "[]", '{"prompt": "x"}', '{"text": 3}', ""])
def test_a_bad_line_of_inputs_is_named(run_of: RunOf, tmp_path: Path, line: str) -> None:
    inputs = tmp_path / "mine.jsonl"
    inputs.write_text('{"text": "good"}\n' + line + "\n")
    with pytest.raises(Refused, match=r"mine\.jsonl:2: not a JSON object with the text under 'text'"):
        ask(run_of("bert"), inputs=inputs)


@pytest.mark.parametrize("name", ["gemma3", "gpt2"])
def test_a_plain_folder_answers_built_in_texts(tmp_path: Path, name: str) -> None:
    result = ask(save_tiny_model(name, tmp_path / name)).predictions
    assert result.samples == 4 and result.comparison is None
    assert bool(result.texts) == (name == "gpt2")


def test_a_plain_folder_with_weights_missing_is_refused_rather_than_filled_with_noise(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_tiny_model("gpt2", tmp_path / "gpt2")
    tensors = load_file(folder / "model.safetensors")
    del tensors["transformer.h.1.mlp.c_fc.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 of the model's weights \(transformer\.h\.1\.mlp\.c_fc\.weight"):
        ask(folder)


def test_batches_have_few_shapes_and_miss_nobody() -> None:
    lengths = [1, 5, 64, 65, 130, 700, 700, 3, 512]
    batches = list(bucketed(lengths, limit=512))
    assert sorted(index for indices, _ in batches for index in indices) == list(range(len(lengths)))
    for indices, width in batches:
        assert all(lengths[index] <= width for index in indices)
        assert width % 64 == 0 or width == max(lengths[index] for index in indices)
        assert len(indices) * width <= max(4096, width)
