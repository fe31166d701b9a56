"""A guess at the job for the code in a folder, from file names and the source of its script and of what that imports from beside it."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.domain.job_fields import NAME, OUTPUT, is_repository
from runner.jobfile.drafting.source import Source, read_source
from runner.jobfile.requirement_lines import PACKAGES, refusal
from runner.jobfile.requirements import without_comment

_SCRIPTS = (
    "train.py",
    "main.py",
    "run.py",
    "finetune.py",
    "fine_tune.py",
    "pretrain.py",
    "src/train.py",
    "src/main.py",
)
_DATA = ("data", "dataset", "datasets", "corpus")
_OUTPUTS = ("outputs", "output", "models", "checkpoints", "results", "logs", "runs")
# Frameworks by what is imported, whose checkpoints gpurun knows (docs/checkpoints.md).
_FRAMEWORKS = {
    "trl": "TRL",
    "transformers": "transformers",
    "lightning": "Lightning",
    "pytorch_lightning": "Lightning",
    "accelerate": "accelerate",
}
_READ = 1 << 20


@dataclass
class Findings:
    """The facts of a drafted job file. ``notes`` are lines for the user about them."""

    name: str
    script: str | None = None
    launcher: str = "python"
    framework: str | None = None
    requirements: str | list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def survey(folder: Path, name: str | None = None) -> Findings:
    """The findings for a folder. Nothing is run or imported."""
    findings = Findings(name or _name(folder))
    findings.script = _script(folder)
    text = _text(folder / findings.script) if findings.script else ""
    script = read_source(text)
    sources = [script, *_beside(folder, findings.script, script)]
    imports = {name for each in sources for name in each.imports}
    findings.launcher = _launcher(text, imports)
    findings.framework = next((name for module, name in _FRAMEWORKS.items() if module in imports), None)
    findings.requirements = _requirements(folder, imports)
    findings.data = _data(folder, sources)
    findings.outputs = _outputs(folder, text, sources, findings.data)
    findings.models = _models(folder, text)
    findings.secrets = ["WANDB_API_KEY"] if "wandb" in imports else []
    findings.notes = list(_notes(findings))
    return findings


def _name(folder: Path) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")[:48].strip("-")
    return plain if NAME.fullmatch(plain) else "job"


def _script(folder: Path) -> str | None:
    """The first script with a usual name; else the only script with a main part; None where there are none or several."""
    for name in _SCRIPTS:
        if (folder / name).is_file():
            return name
    scripts = sorted(path.name for path in folder.glob("*.py") if path.is_file() and path.name.isprintable())
    runnable = [name for name in scripts if "__main__" in _text(folder / name)]
    return (runnable or scripts)[0] if len(runnable or scripts) == 1 else None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_READ).decode("utf-8", "replace")
    except OSError:
        return ""


def _beside(folder: Path, script: str | None, source: Source) -> list[Source]:
    """The sources of the modules that the script imports from its own folder: arguments often stand in a file of their own."""
    own = (folder / script).parent if script else folder
    files = [own / f"{name}.py" for name in sorted(source.imports)]
    return [read_source(_text(file)) for file in files if file.is_file()]


def _launcher(text: str, imports: set[str]) -> str:
    if "accelerate" in imports:
        return "accelerate"
    if "deepspeed" in imports:
        return "torchrun"
    return "torchrun" if re.search(r"torch\.distributed|init_process_group|LOCAL_RANK", text) else "python"


def _requirements(folder: Path, imports: set[str]) -> str | list[str]:
    """The file, or its lines where some cannot be installed on a box (``-e .``); else what the project declares or the script imports."""
    file = folder / "requirements.txt"
    if file.is_file() and not file.is_symlink():
        lines = [line for line in map(without_comment, _text(file).splitlines()) if line]
        good = [line for line in lines if refusal(line) is None]
        return file.name if good == lines else good
    declared = [line for line in _declared(folder / "pyproject.toml") if refusal(line) is None]
    if declared:
        return declared
    local = {path.stem for path in folder.glob("*") if path.suffix == ".py" or path.is_dir()}
    foreign = sorted(imports - local - set(sys.stdlib_module_names))
    return [PACKAGES.get(name, name.replace("_", "-")) for name in foreign]


def _declared(path: Path) -> list[str]:
    """``[project] dependencies`` of a pyproject.toml; nothing where it cannot be read (tomllib comes with Python 3.11)."""
    project: Any = None
    if sys.version_info >= (3, 11):
        import tomllib

        try:
            project = tomllib.loads(_text(path)).get("project")
        except ValueError:
            pass
    found = project.get("dependencies") if isinstance(project, dict) else None
    return [line for line in found if isinstance(line, str)] if isinstance(found, list) else []


def _data(folder: Path, sources: list[Source]) -> list[str]:
    """Folders with a usual name, and what the program reads by its own defaults, as far as it is there."""
    named = [name for name in _DATA if _has_files(folder / name)]
    for path in (_relative(path) for source in sources for path in source.read):
        if path and not _is_below(path, named) and _has_files(folder / path):
            named.append(path)
    return named


def _has_files(path: Path) -> bool:
    """Whether it is a file, or a folder with a file in it, and no link."""
    try:
        if path.is_symlink() or any(above.is_symlink() for above in path.parents if len(above.parts) > 1):
            return False
        return path.is_file() or (path.is_dir() and any(names for _, _, names in os.walk(path)))
    except OSError:
        return False


def _outputs(folder: Path, text: str, sources: list[Source], data: list[str]) -> list[str]:
    """What the program writes by its own defaults; else folders with a usual name that it mentions. Not packages of the code itself."""
    mentioned = re.findall(r"""["']\.?/?([A-Za-z0-9._-]+)[/"']""", text)
    written = [_relative(path) for source in sources for path in source.written]
    for names in (written, [name for name in _OUTPUTS if name in mentioned]):
        found = [name for name in names if name and not _is_below(name, data) and not _is_below_any(data, name)]
        found = [name for name in found if not _is_code(folder / name)]
        top = [name for name in dict.fromkeys(found) if not _is_below(name, [each for each in found if each != name])]
        if top:
            return top
    return ["outputs"]


def _relative(path: str) -> str:
    """A path in the working directory as a job names it; empty for any other."""
    plain = path.strip().removeprefix("./").rstrip("/")
    parts = plain.split("/")
    return plain if all(OUTPUT.fullmatch(part) and part not in (".", "..") for part in parts) else ""


def _is_below(path: str, folders: list[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _is_below_any(paths: list[str], folder: str) -> bool:
    return any(_is_below(path, [folder]) for path in paths)


def _is_code(path: Path) -> bool:
    return path.suffix in (".py", ".sh") or bool(list(path.glob("*.py")))


def _models(folder: Path, text: str) -> list[str]:
    named = re.findall(r"""from_pretrained\(\s*["']([^"'\n]{1,200})["']""", text)
    return [
        name
        for name in dict.fromkeys(named)
        if "/" in name and is_repository(name) and not (folder / name.split("/")[0]).exists()
    ]


def _notes(findings: Findings) -> list[str]:
    notes = []
    if findings.script:
        notes.append(f"script: {findings.script}, started by {findings.launcher}")
        if findings.framework:
            notes.append(f"framework: {findings.framework}, whose checkpoints gpurun recognises")
        notes.append(f"outputs, by the script's own defaults: {', '.join(findings.outputs)}")
    else:
        notes.append("no single training script here: the command is a placeholder, put yours in")
    if isinstance(findings.requirements, str):
        notes.append(f"packages: {findings.requirements}")
    elif findings.requirements:
        notes.append(f"packages, from the project file or the imports: {', '.join(findings.requirements)}")
    if findings.data:
        notes.append(f"data: {', '.join(findings.data)}")
    if findings.models:
        notes.append(f"models of the hub that the script names: {', '.join(findings.models)}")
    return notes
