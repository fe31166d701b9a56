"""From a model's folder to a GGUF file, by llama.cpp's converter and ``llama-quantize``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from remote_payload.agent.wire.redact import redact
from runner.domain.errors import ArtifactError
from runner.domain.terminal import clean_lines
from runner.files import read_json
from runner.local_model.model_folder import CONFIG
from runner.local_model.process import worker_environment

# What each quantisation may change: the largest difference of a log-probability as a share of the largest logit (at least 1). The first
# three are the smoke test's for these dtypes. The others are 1.3 to 2.2 times what a random Llama of two layers showed, whose weights
# quantise worse than trained ones: F16 0.001, BF16 0.006, Q8_0 0.023, Q6_K 0.044, Q5_K_M 0.075, Q4_K_M 0.17, Q3_K_M 0.19, Q2_K 0.45.
TOLERANCE = {
    "F32": 5e-3, "F16": 2e-2, "BF16": 5e-2, "Q8_0": 0.05, "Q6_K": 0.1, "Q5_K_M": 0.15, "Q5_K_S": 0.15, "Q4_K_M": 0.25, "Q4_K_S": 0.25,
    "Q3_K_M": 0.4, "Q2_K": 0.6,
}  # fmt: skip
WIDE = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
TOKENIZER_CONFIG = "tokenizer_config.json"
BESIDE = ("  ", "Traceback", "INFO:", "WARNING:")  # lines of a program that fails which do not say why
TEXTS = ("*.json", "*.model", "*.txt", "*.jinja")  # what describes a model, and its tokenizer


def supported_architectures(converter: Sequence[str]) -> set[str]:
    """The names of transformers' classes that the converter knows; none where it does not tell."""
    listed = _run([*converter, "--print-supported-models"], "llama.cpp's converter does not run")
    return set(re.findall(r"^.*- (\w+)$", listed, re.MULTILINE))


def check_tokenizer(converter: Sequence[str], model: Path, base: Path | None) -> None:
    """Converts configuration and tokenizer alone. Raises ArtifactError for a tokenizer that llama.cpp cannot express."""
    with tempfile.TemporaryDirectory(prefix="gpurun-vocabulary-") as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        for source in filter(None, (base, model)):  # an adapter's own tokenizer replaces its base's
            for path in (found for pattern in TEXTS for found in source.glob(pattern)):
                if not path.name.endswith(".index.json"):
                    (folder / path.name).write_bytes(path.read_bytes())
        _as_version_4_writes(folder)
        words = ["--vocab-only", "--outfile", f"{scratch}/vocabulary.gguf"]
        _run(
            [*converter, str(folder), *words], "llama.cpp's converter does not know this model's tokenizer",
            hint="A newer llama.cpp may know it, unless it was trained for this model alone. gpurun export --merged writes the model for "
            "transformers.",
        )  # fmt: skip


def convert(converter: Sequence[str], whole: Path, dtype: str, into: Path) -> None:
    """Writes the GGUF file ``into`` from the folder of a whole model, its weights in their own ``dtype``. Raises ArtifactError."""
    with tempfile.TemporaryDirectory(prefix="gpurun-convert-") as scratch:
        folder = Path(scratch) / whole.name
        folder.mkdir()
        for path in whole.iterdir():
            os.symlink(path.absolute(), folder / path.name)
        _as_version_4_writes(folder)
        words = ["--outtype", WIDE[dtype].lower(), "--outfile", str(into.absolute())]
        _run([*converter, str(folder), *words], "llama.cpp's converter cannot convert this model")


def quantize(program: Path, file: Path, dtype: str, quantisation: str, into: Path) -> None:
    """Writes the GGUF file ``into`` from ``file``, whose weights are of ``dtype``. Raises ArtifactError."""
    if quantisation == WIDE[dtype]:
        os.link(file, into)
    else:
        _run([str(program), str(file.absolute()), str(into.absolute()), quantisation], "llama-quantize failed")


def _as_version_4_writes(folder: Path) -> None:
    """transformers 5 names a class for every tokenizer that version 4, which the converter asks for, does not have; and it leaves out
    GPT-2's ``n_ctx``, which the converter reads and which is ``n_positions``."""
    _change(folder / TOKENIZER_CONFIG, "tokenizer_class", "TokenizersBackend", "PreTrainedTokenizerFast")
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    if config.get("model_type") == "gpt2":
        _change(folder / CONFIG, "n_ctx", None, config.get("n_positions"))


def _change(file: Path, field: str, old: object, new: object) -> None:
    """The JSON file with a value replaced, where the field has the old one (None: where it is missing)."""
    values = read_json(file) if file.is_file() else {}
    if values.get(field) == old:
        file.unlink(missing_ok=True)  # it may be a link to the model's own
        file.write_text(json.dumps({**values, field: new}), "utf-8")


def _run(command: list[str], failed: str, hint: str = "") -> str:
    """What the program printed. Without a token, offline, outside of gpurun's own packages. Raises ArtifactError with its last words."""
    with tempfile.TemporaryDirectory(prefix="gpurun-llama-cpp-") as empty:
        environment = worker_environment(empty)
        del environment["PYTHONPATH"]
        done = subprocess.run(
            command, cwd=empty, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )  # fmt: skip
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        last = "\n".join([line for line in said if not line.startswith(BESIDE)][-3:])
        raise ArtifactError(f"{failed}:\n{redact(clean_lines(last, 900))}", meaning="Nothing was exported.", hint=hint)
    return done.stdout + done.stderr
