"""``gpurun sample``: prompts in, text out, from a checkpoint that is here or, while it trains, on the box."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from remote_payload.recipes.answers import Answer, Loaded
from runner.domain.answers.reading import Impossible
from runner.domain.errors import ArtifactError, UserError
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.domain.terminal import clean
from runner.local_model.base import choose_dtype
from runner.local_model.lines import prompt_line, read_message
from runner.local_model.messages import Failure, SampleRequest, Sampling
from runner.local_model.model_folder import read_model_folder
from runner.local_model.process import model_process, show
from runner.workflow.checkpoints import fetched
from runner.workflow.connect import connect_to_run
from runner.workflow.inference.base_model import bring_base
from runner.workflow.inference.targets import checkpoint_here

MODULE = "remote_payload.recipes.sample"
BRING = "Bring them home with gpurun fetch, or ask on the box: gpurun sample --on-box"
ON_BOX = "Try it on the box: gpurun sample --on-box"


@dataclass(frozen=True)
class SampleOptions:
    """Which model, where it runs, and how its tokens are chosen. ``base`` asks the model that training began with."""

    checkpoint: str = "latest"
    base: bool = False
    device: str = "auto"
    sampling: Sampling = field(default_factory=Sampling)

    def arguments(self) -> list[str]:
        """The options as ``remote_payload/recipes/sample.py`` takes them."""
        named = {
            "--device": self.device,
            "--max-new-tokens": self.sampling.max_new_tokens,
            "--temperature": self.sampling.temperature,
            "--top-p": self.sampling.top_p,
            "--repetition-penalty": self.sampling.repetition_penalty,
            "--seed": self.sampling.seed,
        }
        return [word for name, value in named.items() for word in (name, str(value))] + ["--base"] * self.base


def sample(
    run: Run, options: SampleOptions, prompts: Iterable[str], report: Reporter, *, on_box: bool
) -> Iterator[Answer]:
    """The answers, each as soon as it is there. Raises UserError, ArtifactError and HostErrors."""
    return _on_box(run, options, prompts, report) if on_box else _here(run, options, prompts, report)


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


def _on_box(run: Run, options: SampleOptions, prompts: Iterable[str], report: Reporter) -> Iterator[Answer]:
    """One model is loaded for all prompts; each is answered before the next one is read."""
    asked = map(prompt_line, prompts)
    with connect_to_run(run, report) as link:
        outputs = link.paths.run(run.run_id).outputs
        arguments = ["--outputs", outputs, "--checkpoint", options.checkpoint, *options.arguments()]
        report.note(f"loading {options.checkpoint} on the box")
        yield from _read(link.agent.sample(run.run_id, MODULE, arguments, asked), report)


def _here(run: Run, options: SampleOptions, prompts: Iterable[str], report: Reporter) -> Iterator[Answer]:
    folder = checkpoint_here(run, options.checkpoint, hint=BRING)
    with report.stage(f"inspect {folder.name}"):
        model = read_model_folder(folder)
    base = bring_base(model, run, report, ask_base=options.base)
    dtype = choose_dtype(model, base, report, elsewhere=ON_BOX, ask_base=options.base)
    request = SampleRequest(folder.absolute(), base, options.base, options.device, dtype, options.sampling)
    with model_process(request, ArtifactError) as process:
        with report.stage(f"load {folder.name}") as stage:
            loaded = process.receive(Loaded, show(stage))
        report.note(_spell(loaded))
        for prompt in prompts:
            process.send(prompt_line(prompt))
            yield process.receive(Answer)


def _read(lines: Iterable[str], report: Reporter) -> Iterator[Answer]:
    """The answers among the lines that the box printed. Raises ArtifactError for a failure and for an impossible value."""
    for line in lines:
        try:
            message = read_message(line)
        except Impossible as error:
            raise ArtifactError(f"the model's process printed an impossible value: {error}") from None
        if isinstance(message, Failure):
            raise ArtifactError(message.message)
        if isinstance(message, Loaded):
            report.note(_spell(message))
        if isinstance(message, Answer):
            yield message


def _spell(loaded: Loaded) -> str:
    """The loaded model in a line: its name, its device and its first metrics."""
    shown = ", ".join(f"{name} {value:.4g}" for name, value in list(loaded.metrics.items())[:4])
    what = "the base model" if loaded.base else loaded.model
    return clean(f"{what} on {loaded.device}" + (f" ({shown})" if shown and not loaded.base else ""))
