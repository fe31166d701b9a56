"""The model card: README.md with the Hub's metadata (https://huggingface.co/docs/hub/model-cards) and the run's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, StrictUndefined

from remote_payload.train.download import BaseModel
from remote_payload.train.files import read_json_object, shown_path
from remote_payload.train.model.model_facts import MODEL_FACTS, read_model_facts
from remote_payload.train.run import Run
from remote_payload.train.state.progress import EpochFigures, EvaluationResult, Outcome, Progress

TEMPLATE = """\
---
{{ card.metadata.to_yaml() }}
---

# {{ card.title }}

{{ card.summary }}

## Use

```python
{{ card.usage.strip() }}
```

## Results

Chosen by **{{ card.metric }}** ({{ direction }} is better) at step {{ card.best.step }}, epoch {{ card.best.epoch }}.
{% if card.note %}
**{{ card.note }}**
{% endif %}
| metric | value |
|---|---|
{% for name, value in card.best.metrics.items() -%}
| {{ name }} | {{ value | number }} |
{% endfor %}
{% if card.history | length > 1 -%}
| step | epoch | {{ columns | join(" | ") }} |
|---|---|{{ "---|" * (columns | length) }}
{% for entry in card.history -%}
| {{ entry.step }} | {{ entry.epoch }} |{% for name in columns %} {{ entry.metrics[name] | number if name in entry.metrics }} |{% endfor %}
{% endfor %}
{% endif -%}
## Data

{% for line in card.data -%}
- {{ line }}
{% endfor %}
## Training

| setting | value |
|---|---|
{% for name, value in card.training.items() -%}
| {{ name }} | {{ value }} |
{% endfor %}
{% for section in card.sections -%}
## {{ section.title }}

{{ section.text }}

{% endfor -%}
Trained with gpurun; `training_metadata.json` of the run has the full record.
"""


@dataclass(frozen=True)
class Section:
    """A further section of the card; ``text`` is Markdown."""

    title: str
    text: str


@dataclass(frozen=True)
class Card:
    """Everything that a card shows. ``training`` is a table of settings and figures, ``note`` a remark on the weights."""

    title: str
    summary: str
    usage: str  # Python
    metadata: ModelCardData
    metric: str
    higher_is_better: bool
    best: EvaluationResult
    history: Sequence[EvaluationResult]
    data: Sequence[str]
    training: Mapping[str, str | int]
    sections: Sequence[Section] = ()
    note: str | None = None


def render_card(card: Card) -> str:
    """The card as Markdown. Raises jinja2.UndefinedError for a field that does not exist, which ModelCard.from_template would not."""
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    # Evaluations may have different metrics: a resumed run may measure others.
    columns = metric_names(card.history)
    environment.filters["number"] = lambda value: f"{value:,.4f}" if isinstance(value, float) else f"{value:,}"
    direction = "higher" if card.higher_is_better else "lower"
    return environment.from_string(TEMPLATE).render(card=card, columns=columns, direction=direction)


def metric_names(entries: Sequence[EvaluationResult] | Sequence[EpochFigures]) -> list[str]:
    """The metrics that one of the entries has at least."""
    return list(dict.fromkeys(name for entry in entries for name in entry["metrics"]))


def hub_metadata(
    run: Run, base: BaseModel | None, task: str, *, adapter: bool, tags: list[str], metrics: Mapping[str, float]
) -> ModelCardData:
    """The card's YAML header: licence, base model if it is on the Hub, task, and the metrics as a model index.

    The model index is the form in which the Hub reads evaluation results (https://huggingface.co/docs/hub/model-cards).
    """
    dataset = dataset_name(run.settings)
    results = [
        EvalResult(
            task_type=task, dataset_type="custom", dataset_name=dataset,
            metric_type=metric, metric_name=metric, metric_value=value,
        )
        for metric, value in metrics.items()
    ]  # fmt: skip
    return base_metadata(base, task, adapter=adapter, tags=tags, model_name=title_of(run), eval_results=results)


def base_metadata(base: BaseModel | None, task: str, *, adapter: bool, tags: list[str], **more: Any) -> ModelCardData:
    """The part of the header that follows from the model itself; ``more`` are further fields of it."""
    public = base is not None and base.on_the_hub
    return ModelCardData(
        license=(base.licence if base else None) or "other",
        base_model=base.id if base and public else None,
        base_model_relation=("adapter" if adapter else "finetune") if public else None,
        library_name="peft" if adapter else "transformers",
        pipeline_tag=task,
        tags=["gpurun", *tags],
        **more,
    )


def base_line(base: BaseModel) -> str:
    """What the base model is, for readers elsewhere: a folder's name says nothing there, but its architecture and its digest do.

    The digest is the one that the Hub shows for a file of weights, so that a copy of a public model can be recognised.
    """
    if base.on_the_hub:
        return f"`{base.id}` at commit `{base.revision}`"
    folder = Path(base.path)
    parts = [f"`{read_json_object(folder / 'config.json').get('model_type')}` in the folder `{base.name}`"]
    if (folder / MODEL_FACTS).is_file():
        parts.append(f"trained by gpurun's recipe `{read_model_facts(folder).get('recipe')}`")
    if base.sha256:
        parts.append(f"model.safetensors has the sha256 `{base.sha256}`")
    return ", ".join(parts)


def title_of(run: Run) -> str:
    """The model's name: that of the job, or of the recipe where the job has none."""
    return str(run.job.get("name") or run.recipe)


def dataset_name(settings: Any) -> str:
    """The training data by its name in the job, without its place on this machine."""
    places = next(getattr(settings, name) for name in ("train", "dataset", "corpus") if hasattr(settings, name))
    return ", ".join(map(shown_path, [places] if isinstance(places, str) else places))


def training_settings(run: Run, base: BaseModel | None, progress: Progress) -> dict[str, str | int]:
    """The base model and the settings that every recipe has, as rows of the card's table."""
    settings = run.settings
    schedule = f"{settings.schedule.name}, warm-up {settings.schedule.warmup:g}"
    return {
        **({"base model": base_line(base)} if base else {}),
        "learning rate": f"{settings.optimizer.learning_rate:g}, {schedule}",
        "effective batch": f"{settings.batch.size} (micro-batch {progress.micro_batch_rows}, {run.world.size} device(s))",
        "steps": progress.step,
        "seed": settings.seed,
    }


def epoch_sections(epochs: Sequence[EpochFigures]) -> list[Section]:
    """A table of what each epoch was like as the model learnt from it; nothing before the first is over."""
    if not epochs:
        return []
    names = metric_names(epochs)
    lines = [f"| epoch | seconds | examples/s | {' | '.join(names)} |", "|---" * (3 + len(names)) + "|"]
    for epoch in epochs:
        speed = f"{epoch['seconds']:,.1f} | {epoch['samples_per_second']:,.1f}"
        cells = (f"{epoch['metrics'][name]:.4f}" if name in epoch["metrics"] else "" for name in names)
        lines.append(f"| {epoch['epoch']:g} | {speed} | {' | '.join(cells)} |")
    told = "Of the examples as the model learnt from them, each before the update that it took part in."
    return [Section("Epochs", "\n".join(lines) + "\n\n" + told)]


def training_figures(outcome: Outcome | None) -> dict[str, str | int]:
    """Time, speed and memory, as rows of the card's table; none before training is over."""
    if outcome is None:
        return {}
    progress, speed = outcome.progress, f"{outcome.tokens_per_second:,.0f} tokens/s"
    if outcome.samples_per_second is not None:
        speed += f", {outcome.samples_per_second:,.1f} examples/s"
    rows: dict[str, str | int] = {"time": f"{outcome.seconds:,.0f} s, {speed}, ended: {outcome.reason}"}
    if progress.first_loss is not None and progress.last_loss is not None:
        rows["training loss"] = f"{progress.first_loss:.4f} at the first step, {progress.last_loss:.4f} at the last"
    if outcome.mfu:
        rows["MFU"] = f"{outcome.mfu:.1%} (attention counted in full, whatever its mask)"
    if outcome.peak_memory:
        rows["GPU memory"] = f"{outcome.peak_memory / 2**30:.1f} GiB"
    return rows
