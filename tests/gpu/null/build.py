"""Compiles the null GPU for the torch of this interpreter: ``nullgpu.so``, a CUDA runtime, and ``libcuda.so.1``, a driver.

    .venv-cuda/bin/python tests/gpu/null/build.py .null-gpu

Needs ``cc`` and ``nm``. The environment variable MAJOR is the compute capability of the device, 9 by itself.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ASKING = ("libc10_cuda.so", "libtorch_cuda.so", "libtorch_python.so")  # libraries of torch that call the runtime
NAME = re.compile(r"\bcuda[A-Z]\w*")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    runtime = (HERE / "runtime.c").read_text()
    # What torch asks of the runtime beyond what is written out succeeds and does nothing.
    nothing = "".join(
        f"Status {name}(void) {{ return 0; }}\n" for name in sorted(wanted() - set(NAME.findall(runtime)))
    )
    with tempfile.NamedTemporaryFile("w", suffix=".c") as source:
        source.write(runtime + nothing)
        source.flush()
        compile_library(source.name, folder / "nullgpu.so", f"-DMAJOR={int(os.environ.get('MAJOR', 9))}", "-ldl")
    compile_library(str(HERE / "driver.c"), folder / "libcuda.so.1")


def wanted() -> set[str]:
    """The functions of the CUDA runtime that torch's libraries leave to others."""
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        sys.exit("build.py: there is no torch in this interpreter")
    libraries = [Path(torch.origin).parent / "lib" / name for name in ASKING]
    missing = [library.name for library in libraries if not library.exists()]
    if missing:
        sys.exit(f"build.py: torch here is no CUDA build: it has no {', '.join(missing)}")
    command = ["nm", "-D", "--undefined-only", *map(str, libraries)]
    return set(NAME.findall(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def compile_library(source: str, library: Path, *options: str) -> None:
    """Compiles one C file; the library gets its name when it is complete, since tests may be running with the old one."""
    temporary = library.with_name(f".tmp-{library.name}")
    command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-w", "-o", str(temporary), source, *options]
    subprocess.run(command, check=True)
    temporary.rename(library)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
