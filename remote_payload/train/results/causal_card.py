"""The card of a language model: how to use it, its metrics beside those of its base, and samples of its answers."""

from __future__ import annotations

from collections.abc import Sequence

from peft import PeftModel

from remote_payload.train.data.facts import DataFact
from remote_payload.train.download import BaseModel
from remote_payload.train.evaluation.answers import Report
from remote_payload.train.files import shown_path
from remote_payload.train.model.causal import Network
from remote_payload.train.model.model_facts import Prompting
from remote_payload.train.results.card import (
    Card,
    Section,
    epoch_sections,
    hub_metadata,
    render_card,
    title_of,
    training_figures,
    training_settings,
)
from remote_payload.train.run import Run
from remote_payload.train.state.best import Weights, remark
from remote_payload.train.state.progress import Outcome, Progress

SAMPLES = 3
LONGEST = 600  # characters of a sample


def causal_card(
    run: Run, network: Network, base: BaseModel | None, prompting: Prompting, progress: Progress,
    data: Sequence[DataFact], weights: Weights, usage: str, outcome: Outcome | None = None, report: Report | None = None,
    start: str | None = None,
) -> str:  # fmt: skip
    """README.md of ``models/best``, which holds ``weights``. Before the end of training there are no ``outcome`` and
    ``report``; ``start`` is the folder of the adapter that training started from. ``usage`` is the Python that loads and asks it."""
    adapter = isinstance(network, PeftModel)
    measured = {**weights.entry["metrics"], **(report.numbers("tuned") if report else {})}
    return render_card(
        Card(
            title=title_of(run),
            summary=summary(run, network, base, start),
            usage=usage,
            metadata=hub_metadata(run, base, "text-generation", adapter=adapter, tags=[run.recipe], metrics=measured),
            metric=run.settings.evaluation.metric,
            higher_is_better=run.higher_is_better,
            best=weights.entry,
            history=progress.evaluations,
            data=[fact.line() for fact in data],
            training={
                **training_settings(run, base, progress),
                **prompting_lines(prompting),
                **training_figures(outcome),
            },
            sections=[*epoch_sections(progress.epochs), *(sections(report, start) if report else [])],
            note=remark(weights, outcome),
        )
    )


def summary(run: Run, network: Network, base: BaseModel | None, start: str | None) -> str:
    """What was trained, in a sentence."""
    if base is None:
        return f"A `{network.config.model_type}` language model trained from nothing by `{run.recipe}`."
    lora = network.peft_config["default"] if isinstance(network, PeftModel) else None
    how = f"LoRA of rank {lora.r}" if lora else "full fine-tuning"
    answers = "; the loss was on the answers only" if run.recipe in ("sft", "preference") else ""
    beginning = f", going on from the adapter `{shown_path(start)}`" if start else ""
    return f"`{base.name}`, trained by `{run.recipe}` with {how}{beginning}{answers}."


def prompting_lines(prompting: Prompting) -> dict[str, str | int]:
    """How the model was trained to be asked, as rows of the card's table."""
    rows: dict[str, str | int] = {}
    if length := prompting.get("max_length"):
        rows["longest example"] = f"{length} tokens"
    if template := prompting.get("prompt_template"):
        rows["prompt"] = "`" + template.replace("\n", "\\n") + "`"
    if system := prompting.get("system_prompt"):
        rows["system prompt"] = system
    return rows


def sections(report: Report, start: str | None) -> list[Section]:
    """The metrics of all models that were measured, side by side, and the first answers of each."""
    names = list(report.held_out)
    rows = "\n".join(f"| {key} | {' | '.join(cells)} |" for key, cells in report.table().items())
    table = f"| held-out | {' | '.join(names)} |\n|---|{'---|' * len(names)}\n{rows}"
    told = "`base` is the model that this training started from."
    if start:
        told = "`before` is the model with the adapter that this training started from, `base` is the same without it."
    found = [Section("Before and after", f"{table}\n\n{told}")]
    if report.answered:
        shown = []
        for row in report.rows()[:SAMPLES]:
            parts = [f"- {name}: {quoted(text)}" for name, text in row.items()]
            shown.append("\n".join(parts))
        found.append(Section("Samples", "\n\n".join(shown)))
    return found


def quoted(text: str) -> str:
    """The end of a text as one line of inline code; backticks in it become apostrophes."""
    line = " ".join(text[-LONGEST:].split()).replace("`", "'")
    return f"`{line}`" if line else "(nothing)"
