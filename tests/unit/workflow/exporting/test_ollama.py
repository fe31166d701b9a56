"""``export --ollama``: the Modelfile asks the model as its chat template does, and what cannot be said so is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from remote_payload.settings.generation import Generation
from runner.domain.errors import ArtifactError, UserError
from runner.domain.progress import Silent
from runner.local_model.messages import PromptForm
from runner.local_model.worker import Refused
from runner.local_model.worker.ollama import find_pieces, prompt_form
from runner.workflow.exporting.export import Wanted, export
from runner.workflow.exporting.ollama import modelfile
from tests.support.models.exported import call_instead_of_a_process
from tests.support.models.smoke_models import causal_run, classifier_run, record_fetched
from tests.support.models.tiny_models import CHAT_TEMPLATE, TOOL_TEMPLATE, sentencepiece_tokenizer, tiny_tokenizer

# As the families write them, shortened: a system message of its own (Qwen2.5),
# marks around the question alone (Mistral), headers (Llama 3).
QWEN = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Q.<|im_end|>\n{% endif %}" + CHAT_TEMPLATE
)  # fmt: skip
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|h|>{{ m.role }}<|/h|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|h|>assistant<|/h|>\n\n{% endif %}"
)
NUMBERED = "{% for m in messages %}{{ loop.index }}. {{ m.content }}\n{% endfor %}"
FORGETFUL = (
    "{% for m in messages[-1:] %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}> {% endif %}"
)


def tokenizer_with(template: str) -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    "template", [CHAT_TEMPLATE, TOOL_TEMPLATE, QWEN, LLAMA], ids=["plain", "tools", "qwen", "llama"]
)
@pytest.mark.parametrize("seed", range(10))
def test_conversations_of_pieces_are_what_the_template_renders(template: str, seed: int) -> None:
    tokenizer, dice = tokenizer_with(template), random.Random(seed)
    pieces = find_pieces(tokenizer)
    roles = ["user", *("assistant", "user") * dice.randrange(4)]
    roles = ["system", *roles] if dice.random() < 0.5 else roles
    words = ["a", "{{ b }}", "<|im_end|>", "two\nlines", "ü", "'\"\\"]
    messages = [{"role": role, "content": " ".join(dice.choices(words, k=dice.randrange(1, 5)))} for role in roles]
    assert pieces.written(messages) == tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )


def test_a_system_message_of_the_template_and_the_first_token_are_told_apart() -> None:
    form = prompt_form(tokenizer_with(QWEN), None, [3])
    assert (form.system, form.stop) == ("You are Q.", ("<|im_end|>",))
    assert form.template == (
        '{{ range .Messages }}{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "assistant" }}<|im_start|>assistant\n{{ .Content }}<|im_end|>\n{{ end }}{{ end }}<|im_start|>assistant\n'
    )
    adds = sentencepiece_tokenizer()  # every text gets <s>
    adds.chat_template = MISTRAL
    assert find_pieces(adds).start == "<s>" and not prompt_form(adds, None, [2]).template.startswith("<s>")
    assert prompt_form(tokenizer_with(LLAMA), None, [3]).template.startswith("<|endoftext|>{{ range")


@pytest.mark.parametrize("template", [NUMBERED, FORGETFUL], ids=["numbered", "forgetful"])
def test_a_template_that_is_more_than_messages_is_refused(template: str) -> None:
    with pytest.raises(Refused, match="more than messages one after the other"):
        find_pieces(tokenizer_with(template))


def test_a_model_that_completes_gets_the_prompt_in_its_template() -> None:
    tokenizer = tiny_tokenizer(chat=False)
    for template, wanted in [
        (None, "{{ .Prompt }}"),
        ("Q: {question}\nA:", "Q: {{ .Prompt }}\nA:"),
        ("{a} and {b}", "{{ .Prompt }}"),
        ("{{{{ {a}", '{{ "{{" }}{{ "{{" }} {{ .Prompt }}'),
    ]:
        facts: Any = {"chat": False, "prompt_template": template}
        assert prompt_form(tokenizer, facts, []).template == wanted


def test_what_the_file_says() -> None:
    form = PromptForm("<a>{{ .Prompt }}\n", "Be brief.", ("</s>", "<|x|>"))
    assert modelfile(Path("x/m.gguf"), form, Generation(temperature=0.7, top_p=0.9, repetition_penalty=1.2)) == (
        'FROM ./m.gguf\nTEMPLATE """<a>{{ .Prompt }}\n"""\nSYSTEM """Be brief."""\nPARAMETER temperature 0.7\n'
        "PARAMETER repeat_penalty 1.2\nPARAMETER top_p 0.9\nPARAMETER top_k 0\nPARAMETER num_predict 256\n"
        'PARAMETER stop "</s>"\nPARAMETER stop "<|x|>"\n'
    )
    assert "PARAMETER" not in modelfile(Path("m"), PromptForm("a", "", ()), None)
    for text in ('a"""b', 'ends with "'):
        with pytest.raises(ArtifactError, match="a Modelfile cannot hold"):
            modelfile(Path("m"), PromptForm(text, "", ()), None)


def test_a_run_gets_its_own_generation_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    call_instead_of_a_process(monkeypatch)
    monkeypatch.chdir(tmp_path)
    best = causal_run(tmp_path)
    facts = json.loads((best / "gpurun.json").read_text())
    asked = {"chat": True, "end_tokens": [3], "system_prompt": "Be brief."}
    (best / "gpurun.json").write_text(json.dumps({**facts, **asked}))
    settings = {"model": "base", "train": "x", "generation": {"temperature": 0.5, "max_new_tokens": 9}}
    run = record_fetched(tmp_path / "home", tmp_path / "models", tmp_path, recipe="sft", settings=settings)
    merged, ollama = export(best, run, Wanted(tmp_path / "out", ollama=True), Silent())
    assert (ollama.form, ollama.path, ollama.comparison) == ("ollama", tmp_path / "out/Modelfile", merged.comparison)
    lines = ollama.path.read_text().splitlines()
    assert lines[0] == "FROM ./merged" and 'SYSTEM """Be brief."""' in lines and "PARAMETER temperature 0.5" in lines
    assert "PARAMETER num_predict 9" in lines and 'PARAMETER stop "<|im_end|>"' in lines


def test_a_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="would lose its head"):
        export(classifier_run(tmp_path), None, Wanted(tmp_path / "out", ollama=True), Silent())
