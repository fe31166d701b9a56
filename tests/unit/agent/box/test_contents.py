"""An environment that lost files is told from a whole one."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from remote_payload.agent.box.pythons import contents

WORDS = ("alpha", "beta", "gamma")


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A real venv with three packages as an installer leaves them."""
    folder = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in WORDS:
        (site / name).mkdir()
        (site / f"{name}-1.0.dist-info").mkdir()
        rows = []
        for path, text in (
            (f"{name}/__init__.py", "x = 1\n"),
            (f"{name}/deep, er.py", ""),
            (f"{name}-1.0.dist-info/METADATA", "m"),
        ):
            (site / path).write_text(text)
            quoted = f'"{path}"' if "," in path else path
            rows.append(f"{quoted},sha256=x,{len(text)}")
        rows += [f"{name}-1.0.dist-info/RECORD,,", f"{name}/__pycache__/x.pyc,,", "../../../bin/program,sha256=x,7"]
        (site / f"{name}-1.0.dist-info" / "RECORD").write_text("\n".join(rows) + "\n")
    contents.note(str(folder))
    return folder


def test_a_whole_environment_has_no_problem_and_bytecode_is_nobodys_business(environment: Path) -> None:
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "alpha" / "__pycache__").mkdir()
    (site / "alpha" / "__pycache__" / "y.pyc").write_text("y")
    assert contents.problem(str(environment)) is None


@pytest.mark.parametrize("seed", range(12))
def test_any_file_of_any_package_that_is_gone_or_cut_short_is_named(environment: Path, seed: int) -> None:
    draw = random.Random(f"contents-{seed}")
    (site,) = environment.glob("lib/python*/site-packages")
    files = sorted(path for path in site.rglob("*") if path.is_file() and "venv" not in path.name)
    lost = draw.choice([path for path in files if path.stat().st_size or path.name != "RECORD"])
    if lost.stat().st_size > 1 and lost.name != "RECORD" and draw.random() < 0.5:
        lost.write_bytes(lost.read_bytes()[:-1])
    else:
        lost.unlink()
    problem = contents.problem(str(environment))
    assert problem is not None and lost.name in problem and "it lacks 1 file" in problem


def test_a_whole_package_that_is_gone_with_its_record_is_missed_and_so_is_a_python(environment: Path) -> None:
    (site,) = environment.glob("lib/python*/site-packages")
    for path in (site / "beta", site / "beta-1.0.dist-info"):
        for each in path.iterdir():
            each.unlink()
        path.rmdir()
    assert "beta-1.0.dist-info" in str(contents.problem(str(environment)))
    for path in site.rglob("*"):
        if path.is_file():
            path.unlink()
    (environment / contents.PACKAGES).unlink()
    assert "the list of its packages is gone" in str(contents.problem(str(environment)))
    (environment / "bin" / "python").unlink()
    assert "its Python does not start" in str(contents.problem(str(environment)))
