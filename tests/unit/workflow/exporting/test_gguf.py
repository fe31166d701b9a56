"""``export --gguf``: llama.cpp's own converter and server, where they are on this machine (LLAMA_CPP_DIR)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from runner.domain.errors import ArtifactError, GpurunError, SmokeTestFailed, UserError
from runner.domain.progress import Silent
from runner.local_model.llama_cpp import programs
from runner.local_model.llama_cpp.programs import GET_IT, LlamaCpp, converter_command, find_llama_cpp
from runner.local_model.llama_cpp.server import LlamaServer, serving
from runner.workflow.exporting import export as module
from runner.workflow.exporting.export import Export, Wanted, export
from tests.support.models.card_snippets import Task, run_without_gpurun, snippet_of
from tests.support.models.exported import call_instead_of_a_process, llama_run, peft_adapter, spoil
from tests.support.models.smoke_models import classifier_run
from tests.support.models.tiny_models import save_tiny_model
from tests.support.models.trained_llama import LEARNT, trained_llama

QUANTISATIONS = ("F32", "F16", "Q8_0", "Q4_K_M", "Q2_K")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "home"))
    call_instead_of_a_process(monkeypatch)


@pytest.fixture
def llama_cpp() -> LlamaCpp:
    try:
        return find_llama_cpp()
    except UserError as error:
        pytest.skip(f"{error.message}. make llama-cpp gets it from PyPI")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama_run(tmp_path_factory.mktemp("llama"))


def exported(folder: Path, into: Path, *quantisations: str, merged: bool = False) -> list[Export]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parents[1] if folder.name == "best" else folder.parent)
        return export(folder, None, Wanted(into, merged, quantisations), Silent())


def test_each_quantisation_predicts_what_the_box_did(llama_cpp: LlamaCpp, llama: Path, tmp_path: Path) -> None:
    made = exported(llama, tmp_path / "out", *QUANTISATIONS, merged=True)
    names = [*(f"out-{name}.gguf" for name in QUANTISATIONS), "merged"]
    assert [each.path.name for each in made] == names
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == sorted(names)
    for each in made:
        assert each.by_box and each.merged_layers == 4
    exact, coarse = made[0].comparison, made[-2].comparison
    assert exact.agree == exact.answers and exact.difference < coarse.difference
    assert made[-2].size < made[0].size / 4


def test_what_a_model_has_learnt_it_says_in_transformers_and_in_llama_cpp(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    best = trained_llama(tmp_path)
    names = ("F16", "Q8_0", "Q4_K_M")
    made = export(best, None, Wanted(tmp_path / "out", True, names, ollama=True), Silent())
    assert [each.path.name for each in made] == [*(f"out-{name}.gguf" for name in names), "merged", "Modelfile"]
    assert all(each.by_box and each.comparison.agree == each.comparison.answers for each in made)
    assert (tmp_path / "out/Modelfile").read_text().startswith("FROM ./out-F16.gguf\nTEMPLATE ")
    asked = f"found = [answer(each) for each in {list(LEARNT)!r}]"
    task = Task(tmp_path / "out", snippet_of(tmp_path / "out/merged"), asked, offline=True)
    assert run_without_gpurun({"merged": task}, tmp_path)["merged"]["found"] == list(LEARNT.values())
    for each in made[: len(names)]:
        with serving(llama_cpp.server, each.path, 128) as server:
            assert [chat(server, question) for question in LEARNT] == list(LEARNT.values()), each.path.name


def chat(server: LlamaServer, question: str) -> str:
    """The answer of llama.cpp's own chat, with the template that is in the file."""
    told = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 40}
    answer: str = server._ask("v1/chat/completions", told)["choices"][0]["message"]["content"]
    return answer.strip()


@pytest.mark.parametrize("quantisation", ["Q8_0", "Q4_K_M"])
def test_wrong_weights_do_not_pass(
    llama_cpp: LlamaCpp, llama: Path, quantisation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.convert

    def wrong(converter: list[str], whole: Path, dtype: str, into: Path) -> None:
        spoil(whole, seed=1, matrices=4)
        real(converter, whole, dtype, into)

    monkeypatch.setattr(module, "convert", wrong)
    with pytest.raises(SmokeTestFailed, match=rf"{quantisation}\.gguf does not predict what"):
        exported(llama, tmp_path / "out", quantisation)
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_and_an_architecture_that_llama_cpp_does_not_know_are_refused_before_the_merge(
    llama_cpp: LlamaCpp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.workflow.exporting.export.merge", lambda *_, **__: pytest.fail("it was merged"))
    own = peft_adapter(tmp_path / "own", "gpt2", ["c_attn"], tied=True)  # its tokenizer was trained here
    with pytest.raises(ArtifactError, match="does not know this model's tokenizer") as raised:
        exported(own, tmp_path / "out", "Q8_0")
    assert "pre-tokenizer was not recognized" in raised.value.message and 'File "' not in raised.value.message
    assert raised.value.hint and "--merged" in raised.value.hint
    strange = save_tiny_model("llama", tmp_path / "strange")
    config = json.loads((strange / "config.json").read_text())
    (strange / "config.json").write_text(json.dumps({**config, "architectures": ["StrangeForCausalLM"]}))
    with pytest.raises(UserError, match="does not know the architecture StrangeForCausalLM"):
        exported(strange, tmp_path / "out", "Q8_0")
    assert not (tmp_path / "out").exists()


def test_without_llama_cpp_the_two_lines_that_get_it_are_told(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("LLAMA_CPP_DIR", raising=False)
    with pytest.raises(UserError, match=r"no convert_hf_to_gguf\.py, llama-quantize, llama-server on PATH") as raised:
        exported(llama, tmp_path / "out", "Q8_0")
    assert raised.value.hint.endswith(GET_IT) and GET_IT.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="would lose its head"):
        exported(classifier_run(tmp_path), tmp_path / "out", "Q8_0")


def llama_folder(root: Path, requirements: str) -> LlamaCpp:
    """A folder as a clone of llama.cpp is, with these requirements."""
    for name in ("convert_hf_to_gguf.py", "build/bin/llama-quantize", "build/bin/llama-server"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / programs.REQUIREMENTS).parent.mkdir()
    (root / programs.REQUIREMENTS).write_text(requirements)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMA_CPP_DIR", str(root))
        return find_llama_cpp()


def test_the_converter_gets_an_environment_of_its_own_once(tmp_path: Path) -> None:
    found = llama_folder(tmp_path / "llama.cpp", "")
    python, script = converter_command(found, Silent())
    assert script == str(tmp_path / "llama.cpp/convert_hf_to_gguf.py")
    asked = [python, "-c", "import sys; print(sys.prefix)"]
    prefix = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    assert Path(prefix).parent == tmp_path / "home/llama-cpp"
    before = os.stat(python)
    assert converter_command(found, Silent()) == [python, script] and os.stat(python) == before
    assert [each.name for each in Path(prefix).parent.iterdir()] == [Path(prefix).name]  # nothing half-built stays


def test_an_environment_that_cannot_be_made_is_told_and_does_not_stay(tmp_path: Path) -> None:
    found = llama_folder(tmp_path / "llama.cpp", f"{tmp_path}/there-is-no-such-package\n")
    with pytest.raises(GpurunError, match="the converter's packages were not installed"):
        converter_command(found, Silent())
    assert not list((tmp_path / "home/llama-cpp").iterdir())
