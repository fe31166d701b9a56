"""The card of a text classifier: how to use it, its metrics, its classes and its data."""

from __future__ import annotations

from collections.abc import Sequence

from remote_payload.settings.classify import ClassifySettings
from remote_payload.train.data.facts import Side
from remote_payload.train.data.labelled import LabelledTexts
from remote_payload.train.download import BaseModel
from remote_payload.train.files import shown_path
from remote_payload.train.results.card import (
    Card,
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


def classifier_card(
    run: Run[ClassifySettings], base: BaseModel, data: LabelledTexts, sides: Sequence[Side], progress: Progress, weights: Weights,
    lora_rank: int, usage: str, outcome: Outcome | None = None,
) -> str:  # fmt: skip
    """README.md of ``models/best``, which holds ``weights``. Before the end of training there is no ``outcome``. ``lora_rank`` is the
    model's, 0 where all of it was trained; ``usage`` is the Python that loads and asks it."""
    settings = run.settings
    adapter = lora_rank > 0
    how = f"LoRA of rank {lora_rank}" if adapter else "full fine-tuning"
    if settings.adapter:
        how += f", going on from the adapter `{shown_path(settings.adapter)}`"
    return render_card(
        Card(
            title=title_of(run),
            summary=f"A text classifier with the classes {', '.join(map(str, data.labels))}: `{base.name}` with {how}, "
            "the mean of its token vectors, and one linear layer in fp32.",
            usage=usage,
            metadata=hub_metadata(
                run, base, "text-classification", adapter=adapter, metrics=weights.entry["metrics"],
                tags=["text-classification", *(["lora"] if adapter else [])],
            ),
            metric=settings.evaluation.metric,
            higher_is_better=run.higher_is_better,
            best=weights.entry,
            history=progress.evaluations,
            data=data_lines(data, sides, settings.max_length),
            training={
                **training_settings(run, base, progress),
                "class weights": settings.class_weights,
                **training_figures(outcome),
            },
            sections=epoch_sections(progress.epochs),
            note=remark(weights, outcome),
        )
    )  # fmt: skip


def data_lines(data: LabelledTexts, sides: Sequence[Side], max_length: int) -> list[str]:
    """The sides with their texts and tokens, and the classes of the training side, in words."""
    lines = []
    for side in sides:
        count = side.counts
        truncated = f", {count['texts_cut']} truncated at {max_length}" if count["texts_cut"] else ""
        lines.append(f"{side.name}: {count['rows']:,} texts, {count['tokens']:,} tokens{truncated}")
    counts = zip(data.labels, data.counts(), strict=True)
    return [*lines, "training texts of each class: " + ", ".join(f"{label}: {count:,}" for label, count in counts)]
