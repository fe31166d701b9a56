"""``gpurun sample``: a few prompts in, answers out, from a model that is here or, of a run, on its box while it trains."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from remote_payload.recipes.answers import Answered, Loaded
from remote_payload.settings.generation import Answering
from remote_payload.settings.sample import SampleOrder, SampleSettings
from runner import store
from runner.domain.answers.reading import Impossible
from runner.domain.errors import ArtifactError, UserError
from runner.domain.progress import Reporter
from runner.domain.run import Run
from runner.domain.terminal import clean
from runner.local_model.base import choose_dtype
from runner.local_model.lines import order_line, prompt_line, read_message
from runner.local_model.messages import Failure, SampleRequest
from runner.local_model.model_folder import read_model_folder
from runner.local_model.process import model_process, show
from runner.workflow.connect import connect_to_run
from runner.workflow.inference.answering import answering, answering_of
from runner.workflow.inference.base_model import bring_base
from runner.workflow.inference.targets import LATEST, Meant, bring, is_here, meaning_of

MODULE = "remote_payload.recipes.sample"
BRING = "Bring them home with gpurun fetch, or ask on the box: gpurun sample --on-box"
ELSEWHERE = "A run's model can be tried on its box: gpurun sample RUN --on-box"
# How a model answers where neither the user nor its training says it: at temperature 0 all samples would be the same.
LIVELY = Answering(max_new_tokens=128, temperature=0.8, top_p=0.95, repetition_penalty=1.1)


@dataclass(frozen=True)
class Chosen:
    """The model that is tried, and whether it is on the box that it answers."""

    meant: Meant
    on_box: bool

    @property
    def name(self) -> str:
        """As messages and documents call it."""
        run = None if self.meant.folder else self.meant.run
        return f"{run.run_id}:{self.meant.checkpoint}" if run else self.meant.named


@dataclass(frozen=True)
class Tried:
    """The model that was loaded, how it is asked, and what comes of each prompt, as soon as it is there."""

    loaded: Loaded
    settings: SampleSettings
    answered: Iterator[Answered]


def choose(named: str | None, checkpoint: str | None, *, on_box: bool) -> Chosen:
    """The model that was typed; without a name the newest run's, without a ``checkpoint`` its latest. What is not here is tried on its box.

    Raises UserError and UnknownRun.
    """
    meant = meaning_of(named) if named else _newest()
    if meant.run is None or meant.folder:
        if checkpoint or on_box:
            raise UserError(
                f"{named} is not a run, so it has no checkpoints, and no box",
                hint="Leave --checkpoint and --on-box out. On a box: gpurun predict TARGET --host HOST",
            )
        return Chosen(meant, on_box=False)
    typed = ":" in meant.named
    if typed and checkpoint:
        raise UserError(f"{named} names a checkpoint already: leave --checkpoint {checkpoint} out")
    meant = dataclasses.replace(meant, checkpoint=meant.checkpoint if typed else checkpoint or LATEST)
    return Chosen(meant, on_box or not is_here(meant))


def _newest() -> Meant:
    run = store.find_started(None)
    return Meant(run.run_id, run=run)


@contextmanager
def trying(
    chosen: Chosen, settings: SampleSettings, told: Mapping[str, object], prompts: Iterable[str], report: Reporter
) -> Iterator[Tried]:
    """The model, ready to be asked; it is given the next prompt when it has answered the last. It ends with the block.

    ``told`` is what of ``settings.answering`` the user said; the rest is as in training. Raises UserError, ArtifactError and HostErrors.
    """
    settings = dataclasses.replace(settings, answering=answering(answering_of(chosen.meant.run), told, LIVELY))
    if settings.samples > 1 and settings.answering.temperature == 0:
        raise UserError(
            f"{settings.samples} samples at temperature 0 would all be the same",
            meaning="" if told.get("temperature") == 0 else "The run's own answers are generated at temperature 0.",
            hint="Give a temperature: --temperature 0.8",
        )
    attempt = _on_box if chosen.on_box else _here
    with attempt(chosen, settings, prompts, report) as (loaded, answered):
        _check(chosen, loaded, settings, told)
        report.note(_spell(loaded, settings))
        yield Tried(loaded, settings, answered)


Answers = tuple[Loaded, Iterator[Answered]]


@contextmanager
def _on_box(chosen: Chosen, settings: SampleSettings, prompts: Iterable[str], report: Reporter) -> Iterator[Answers]:
    run = chosen.meant.run
    assert run
    with connect_to_run(run, report) as link:
        order = SampleOrder(link.paths.run(run.run_id).outputs, chosen.meant.checkpoint, settings)
        report.note(f"loading {chosen.meant.checkpoint} on the box")
        asked = itertools.chain([order_line(order)], map(prompt_line, prompts))
        messages = read_messages(link.agent.sample(run.run_id, MODULE, [], asked))
        loaded = next(messages, None)
        if not isinstance(loaded, Loaded):
            raise ArtifactError("the model's process ended before it had loaded the model")
        yield loaded, (each for each in messages if isinstance(each, Answered))


@contextmanager
def _here(chosen: Chosen, settings: SampleSettings, prompts: Iterable[str], report: Reporter) -> Iterator[Answers]:
    target = bring(chosen.meant, report, hint=BRING)
    with report.stage(f"inspect {target.folder.name}"):
        model = read_model_folder(target.folder, target.blobs)
    base = bring_base(model, target.run, report, ask_base=settings.base and model.kind == "causal_lm")
    dtype = choose_dtype(model, base, report, elsewhere=ELSEWHERE)
    request = SampleRequest(chosen.name, target.folder.absolute(), base, dtype, settings)
    with model_process(request, ArtifactError) as process:
        with report.stage(f"load {target.folder.name}") as stage:
            loaded = process.receive(Loaded, show(stage))

        def answered() -> Iterator[Answered]:
            for prompt in prompts:
                process.send(prompt_line(prompt))
                yield process.receive(Answered)

        yield loaded, answered()


def read_messages(lines: Iterable[str]) -> Iterator[Loaded | Answered]:
    """The messages among the lines that the box printed. Raises ArtifactError for a failure and for an impossible value."""
    for line in lines:
        try:
            message = read_message(line)
        except Impossible as error:
            raise ArtifactError(f"the model's process printed an impossible value: {error}") from None
        if isinstance(message, Failure):
            raise ArtifactError(message.message)
        if isinstance(message, Loaded | Answered):
            yield message


def read_prompts(file: Path) -> list[str]:
    """One prompt a line, or JSON Lines with ``prompt`` or ``text``. Raises UserError with file and line."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: {error}") from None
    if file.suffix != ".jsonl":
        return [line for line in lines if line.strip()]
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            found.append(str(row["prompt"] if "prompt" in row else row["text"]))
        except (ValueError, KeyError, TypeError):
            raise UserError(f'{file}:{number}: not an object with "prompt" or "text"') from None
    return found


def prompts_of(run: Run | None) -> list[str]:
    """The prompts that the run's job tries its checkpoints with."""
    return [str(prompt) for prompt in (run.job.setting("prompts") if run else None) or []]


def _check(chosen: Chosen, loaded: Loaded, settings: SampleSettings, told: Mapping[str, object]) -> None:
    """Raises UserError for what was asked of a model that has no use for it."""
    if loaded.kind == "classifier" and (settings.samples > 1 or any(value is not None for value in told.values())):
        raise UserError(
            f"{chosen.name} is a classifier: it generates nothing, and says the same each time",
            hint="Leave --samples and the options of generated answers out.",
        )
    if loaded.kind == "causal_lm" and told.get("system_prompt") and not loaded.chat:
        raise UserError(
            f"{chosen.name} is not asked in a chat template, so a system message has no place",
            hint="Leave --system-prompt out, and write it into the prompt.",
        )


def _spell(loaded: Loaded, settings: SampleSettings) -> str:
    """The loaded model in a line: its name, its device, its first metrics, and how it answers."""
    shown = ", ".join(f"{name} {value:.4g}" for name, value in list(loaded.metrics.items())[:4])
    model = f"{loaded.model}{' and its base' if settings.base else ''} on {loaded.device}" + f" ({shown})" * bool(shown)
    if loaded.kind == "classifier":
        return clean(model)
    how = settings.answering
    words = [f"temperature {how.temperature:g}", f"at most {how.max_new_tokens} tokens"]
    if how.temperature:
        words[1:1] = [f"top-p {how.top_p:g}", f"seed {settings.seed}"]
    if how.repetition_penalty != 1:
        words.append(f"repetition penalty {how.repetition_penalty:g}")
    return clean(f"{model}: {', '.join(words)}")
