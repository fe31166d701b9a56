"""Where the programs are, and the Python that the converter runs on."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from runner.domain import places
from runner.domain.errors import ArtifactError, UserError
from runner.domain.progress import Reporter
from runner.domain.terminal import clean_lines
from runner.files import writing
from runner.local_model.process import KEPT

CONVERTER = "convert_hf_to_gguf.py"
REQUIREMENTS = "requirements/requirements-convert_hf_to_gguf.txt"
BUILT = ("build/bin", "bin", "")  # where cmake puts programs, and where an archive of them has them
GET_IT = (
    "git clone --depth 1 https://github.com/ggml-org/llama.cpp ~/llama.cpp && export LLAMA_CPP_DIR=~/llama.cpp\n"
    "cmake -S $LLAMA_CPP_DIR -B $LLAMA_CPP_DIR/build && cmake --build $LLAMA_CPP_DIR/build -j --target llama-quantize llama-server"
)
# What pip needs besides, to reach a package index.
FOR_PIP = ("PIP_", "SSL_", "REQUESTS_")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True)
class LlamaCpp:
    """The converter as a script with the folder that it came with (None where it is installed), and the two other programs."""

    converter: Path
    folder: Path | None
    quantize: Path
    server: Path


def find_llama_cpp() -> LlamaCpp:
    """The programs in LLAMA_CPP_DIR or on PATH. Raises UserError with the two lines that get what is missing."""
    named = os.environ.get("LLAMA_CPP_DIR")
    folder = Path(named).expanduser().absolute() if named else None
    converter = folder / CONVERTER if folder else _on_path(CONVERTER) or _on_path("convert-hf-to-gguf")
    found = {
        CONVERTER: converter if converter and converter.is_file() else None,
        "llama-quantize": _program("llama-quantize", folder),
        "llama-server": _program("llama-server", folder),
    }
    missing = [name for name, place in found.items() if place is None]
    if missing:
        where = f"in LLAMA_CPP_DIR ({folder}) or on PATH" if folder else "on PATH, and LLAMA_CPP_DIR names no folder"
        raise UserError(
            f"llama.cpp is not complete on this machine: no {', '.join(missing)} {where}",
            meaning="GGUF is written by llama.cpp's own converter and tested with its own server. Nothing was exported.",
            hint=f"These two lines get it:\n{GET_IT}",
        )
    converter, quantize, server = found.values()
    assert converter and quantize and server
    return LlamaCpp(converter, folder, quantize, server)


def converter_command(llama_cpp: LlamaCpp, report: Reporter) -> list[str]:
    """How the converter is called: as it is installed, or on a Python with the packages that its folder asks for.

    That Python is the folder's own (``.venv`` or ``venv``), or one that is made once for these requirements. Raises ArtifactError
    where they cannot be installed.
    """
    if llama_cpp.folder is None:
        return [str(llama_cpp.converter)]
    for name in (".venv", "venv"):
        if (python := llama_cpp.folder / name / "bin/python").exists():
            return [str(python), str(llama_cpp.converter)]
    return [str(_environment(llama_cpp.folder, report)), str(llama_cpp.converter)]


def _environment(folder: Path, report: Reporter) -> Path:
    """The Python of an environment with the converter's packages: its pins are others than gpurun's."""
    asked = folder / REQUIREMENTS
    if not asked.is_file():
        raise ArtifactError(f"{folder} has no {REQUIREMENTS}", hint="Is LLAMA_CPP_DIR a clone of llama.cpp?")
    texts = b"".join(path.read_bytes() for path in sorted(asked.parent.glob("*.txt")))
    key = hashlib.sha256(texts + sys.version.encode()).hexdigest()[:16]
    made = places.home() / "llama-cpp" / key
    if not made.is_dir():
        with report.stage("install the converter's packages (once)"), writing(made):
            made.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=made.parent, prefix=".new-") as new:
                _run([sys.executable, "-m", "venv", f"{new}/env"])
                _run([f"{new}/env/bin/python", "-m", "pip", "install", "--quiet", "-r", str(asked)])
                os.rename(f"{new}/env", made)
    return made / "bin/python"


def _run(command: list[str]) -> None:
    kept = {name: value for name, value in os.environ.items() if name in (*KEPT, *PROXIES) or name.startswith(FOR_PIP)}
    done = subprocess.run(command, env=kept, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise ArtifactError(
            "the converter's packages were not installed:\n" + clean_lines(done.stderr[-2000:], 1500),
            meaning="Nothing was exported.",
            hint=f"Or make an environment with them yourself, in $LLAMA_CPP_DIR/.venv: pip install -r {REQUIREMENTS}",
        )


def _program(name: str, folder: Path | None) -> Path | None:
    places_of = [folder / place / name for place in BUILT] if folder else []
    return next((place for place in places_of if place.is_file()), None) or _on_path(name)


def _on_path(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found else None
