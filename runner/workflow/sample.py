"""``gpurun sample``: prompts in, text out, from a checkpoint that is here or, while it trains, on the box."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.domain.answers.reading import (
    Fields,
    Impossible,
    boolean,
    harmless,
    mapping_of,
    moment,
    optional,
    string,
    text,
    whole,
)
from runner.domain.errors import ArtifactError, UserError
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.domain.terminal import clean, clean_lines
from runner.hub import fetch_model
from runner.local_model.base import required_base
from runner.local_model.model_folder import read_model_folder
from runner.local_model.process import worker_environment
from runner.workflow.checkpoints import fetched
from runner.workflow.connect import connect_to_run

MODULE = "remote_payload.recipes.sample"


@dataclass(frozen=True)
class Ask:
    """Which model, and how its tokens are chosen."""

    checkpoint: str = "latest"
    base: bool = False
    device: str = "auto"
    max_new_tokens: int = 128
    temperature: float = 0.8
    top_p: float = 0.95
    repetition_penalty: float = 1.1
    seed: int = 0

    def arguments(self) -> list[str]:
        """As the module takes them."""
        named = {
            "--device": self.device,
            "--max-new-tokens": self.max_new_tokens,
            "--temperature": self.temperature,
            "--top-p": self.top_p,
            "--repetition-penalty": self.repetition_penalty,
            "--seed": self.seed,
        }
        return [word for name, value in named.items() for word in (name, str(value))] + ["--base"] * self.base


@dataclass(frozen=True)
class Said:
    """One prompt and what the model made of it; ``seconds`` for all of it."""

    prompt: str
    text: str
    tokens: int
    seconds: float
    ended: bool


def sample(run: Run, ask: Ask, prompts: Iterable[str], report: Reporter, *, on_box: bool) -> Iterator[Said]:
    """The answers, each as soon as it is there. Raises UserError, ArtifactError and HostErrors."""
    return _on_box(run, ask, prompts, report) if on_box else _here(run, ask, prompts, report)


def is_here(run: Run, checkpoint: str) -> bool:
    """Whether that checkpoint was fetched."""
    there = fetched(run)
    return bool(there) if checkpoint == "latest" else checkpoint in there


def read_prompts(file: Path) -> list[str]:
    """One prompt a line, or JSON Lines with ``prompt``. Raises UserError with file and line."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: {error}") from None
    if file.suffix != ".jsonl":
        return [line for line in lines if line.strip()]
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(str(json.loads(line)["prompt"]))
        except (ValueError, KeyError, TypeError):
            raise UserError(f'{file}:{number}: not an object with "prompt"') from None
    return found


def _on_box(run: Run, ask: Ask, prompts: Iterable[str], report: Reporter) -> Iterator[Said]:
    """One model is loaded for all of them; where they come one by one, each is answered before the next is asked for."""
    asked = (json.dumps({"prompt": prompt}).encode() + b"\n" for prompt in prompts)
    with connect_to_run(run, report) as link:
        outputs = link.paths.run(run.run_id).outputs
        arguments = ["--outputs", outputs, "--checkpoint", ask.checkpoint, *ask.arguments()]
        report.note(f"loading {ask.checkpoint} on the box")
        yield from _read(link.agent.sample(run.run_id, MODULE, arguments, asked), report)


def _here(run: Run, ask: Ask, prompts: Iterable[str], report: Reporter) -> Iterator[Said]:
    folder = _folder(run, ask.checkpoint)
    with report.stage(f"inspect {folder.name}"):
        model = read_model_folder(folder)
    base = _base(run, folder, ask, report)
    arguments = ["--folder", str(folder), *(["--base-path", str(base)] if base else []), *ask.arguments()]
    with tempfile.TemporaryDirectory(prefix="gpurun-sample-") as empty, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=empty,
            env=worker_environment(empty),
            text=True,
            encoding="utf-8",
        )
        try:
            with report.stage(f"load {model.folder.name}"):
                first = _line(process, errors)
            yield from _read([first], report)
            for prompt in prompts:
                assert process.stdin is not None
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(json.dumps({"prompt": prompt}) + "\n")
                    process.stdin.flush()
                yield from _read([_line(process, errors)], report)
        finally:
            process.kill()
            process.wait()


def _folder(run: Run, name: str) -> Path:
    there = fetched(run)
    trained = [each for each in there if each != "best"] or list(there)
    wanted = trained[-1] if name == "latest" and trained else name
    if wanted not in there:
        raise ArtifactError(
            f"{run.run_id} has no checkpoint {name} on this machine; here are: {', '.join(there) or 'none'}",
            hint="Bring them home with gpurun fetch, or ask on the box: gpurun sample --on-box",
        )
    return there[wanted]


def _base(run: Run, folder: Path, ask: Ask, report: Reporter) -> Path | None:
    """Where the base model lies here, for an adapter or for ``--base``: never one that only the box names."""
    model = read_model_folder(folder)
    if not model.adapter and not ask.base:
        return None
    named = run.job.setting("model")
    if not model.adapter and not isinstance(named, str):
        raise UserError(f"{run.run_id} was trained from nothing, so there is no base to try")
    if model.adapter:
        base = required_base(model, run.job)
        if base is None or base.folder is not None:
            return base.folder if base else None
        name, revision = base.id, base.revision
    else:
        local = run.job.folder / str(named)
        if local.is_dir():
            return local
        name, revision = str(named), run.job.setting("revision")
    with report.stage(f"base model {name}", "bytes") as stage:
        return fetch_model(name, revision, stage)


def _line(process: subprocess.Popen[str], errors: Any) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if line:
        return line
    errors.seek(0)
    said = clean_lines(errors.read().decode("utf-8", "replace")[-4000:])
    missing = "No module named" in said
    raise ArtifactError(
        f"the model could not be loaded here:\n{said}",
        hint="Install what it takes: pip install 'gpurun[smoke]'"
        if missing
        else "Try it on the box: gpurun sample --on-box",
    )


def _read(lines: Iterable[str], report: Reporter) -> Iterator[Said]:
    """The answers among lines of JSON; ``loaded`` is noted. Raises ArtifactError for an ``error``, and for what cannot be."""
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue  # a library that prints
        try:
            if isinstance(value, dict) and (said := _understood(value, report)):
                yield said
        except Impossible as error:
            raise ArtifactError(f"the model's process said what cannot be: {error}") from None


def _understood(value: dict[str, Any], report: Reporter) -> Said | None:
    """One line's answer; None for a line that is none."""
    said = Fields(value)
    if "error" in value:
        raise ArtifactError(said("error", text))
    if "loaded" in value:
        report.note(_spell(said("loaded", Fields)))
        return None
    if "text" not in value:
        return None
    return Said(
        prompt=said("prompt", string),
        text=said("text", string),
        tokens=said("tokens", whole),
        seconds=said("seconds", moment),
        ended=said("ended", boolean),
    )


def _spell(loaded: Fields) -> str:
    metrics = loaded("metrics", optional(mapping_of(harmless))) or {}  # one that diverged is no number
    named = [(name, value) for name, value in metrics.items() if isinstance(value, int | float)]
    shown = ", ".join(f"{name} {value:.4g}" for name, value in named[:4])
    base = loaded("base", optional(boolean))
    what = "the base model" if base else loaded("model", optional(text)) or "the model"
    return clean(f"{what} on {loaded('device', text)}" + (f" ({shown})" if shown and not base else ""))
