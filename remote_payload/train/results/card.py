"""The model card: README.md with the Hub's metadata (https://huggingface.co/docs/hub/model-cards), numbers filled from the run."""

from __future__ import annotations

import json
from typing import Any

from jinja2 import Environment, StrictUndefined

from remote_payload.train.files import shown_path

TEMPLATE = """\
---
{{ metadata }}---

# {{ title }}

{{ summary }}

## Use

```python
{{ usage }}
```

## Results

Chosen by **{{ metric }}** ({{ "higher" if higher_is_better else "lower" }} is better) at step {{ best_step }}, epoch {{ best_epoch }}.
{% if note %}
**{{ note }}**
{% endif %}
| metric | value |
|---|---|
{% for name, value in metrics.items() -%}
| {{ name }} | {{ value | number }} |
{% endfor %}
{% if history | length > 1 -%}
| step | epoch | {{ columns | join(" | ") }} |
|---|---|{{ "---|" * (columns | length) }}
{% for entry in history -%}
| {{ entry.step }} | {{ entry.epoch }} |{% for name in columns %} {{ entry.metrics[name] | number if name in entry.metrics }} |{% endfor %}
{% endfor %}
{% endif -%}
## Data

{% for line in data -%}
- {{ line }}
{% endfor %}
## Training

| setting | value |
|---|---|
{% for name, value in training.items() -%}
| {{ name }} | {{ value }} |
{% endfor %}
{% for section in sections -%}
## {{ section.title }}

{{ section.text }}

{% endfor -%}
Trained with gpurun; `training_metadata.json` of the run has the full record.
"""


def render_card(
    *, title: str, summary: str, usage: str, metadata: dict[str, Any], metric: str, higher_is_better: bool,
    best: dict[str, Any], history: list[dict[str, Any]], data: list[str], training: dict[str, Any],
    sections: list[dict[str, str]] | None = None, note: str | None = None,
) -> str:  # fmt: skip
    """The card as Markdown; ``best`` and each entry of ``history`` are ``{"step", "epoch", "metrics"}``."""
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    columns = list(
        dict.fromkeys(name for entry in history for name in entry["metrics"])
    )  # a resumed run may measure others
    environment.filters["number"] = lambda value: f"{value:,.4f}" if isinstance(value, float) else f"{value:,}"
    return environment.from_string(TEMPLATE).render(
        title=title, summary=summary, usage=usage.strip(), metadata=as_yaml(metadata), metric=metric,
        higher_is_better=higher_is_better, best_step=best["step"], best_epoch=best["epoch"], metrics=best["metrics"],
        history=history, columns=columns, data=data, training=training, sections=sections or [], note=note,
    )  # fmt: skip


def as_yaml(value: dict[str, Any], indent: int = 0) -> str:
    """A mapping as block YAML; scalars in JSON's spelling, which YAML reads. Empty values are left out."""
    lines = []
    for key, item in value.items():
        lead = " " * indent + key + ":"
        if item is None or item == [] or item == {}:
            continue
        if isinstance(item, dict):
            lines.append(f"{lead}\n{as_yaml(item, indent + 2)}")
        elif isinstance(item, list):
            lines.append(lead + "\n" + "".join(_item(element, indent) for element in item))
        else:
            lines.append(f"{lead} {json.dumps(item, ensure_ascii=False)}\n")
    return "".join(lines)


def _item(element: Any, indent: int) -> str:
    if not isinstance(element, dict):
        return " " * indent + f"- {json.dumps(element, ensure_ascii=False)}\n"
    body = as_yaml(element, indent + 2)
    return " " * indent + "- " + body[indent + 2 :]


def hub_metadata(
    *, base_model: str | None, adapter: bool, licence: str | None, task: str, tags: list[str], name: str, dataset: str,
    metrics: dict[str, float],
) -> dict[str, Any]:  # fmt: skip
    """The card's YAML header: licence, base model where it is one of the Hub, task, and the results as a model index."""
    values = [
        {"type": key, "value": value, "name": key} for key, value in metrics.items() if isinstance(value, int | float)
    ]
    result = {"task": {"type": task}, "dataset": {"name": dataset, "type": "custom"}, "metrics": values}
    return {
        "license": licence or "other",
        "base_model": base_model,
        "base_model_relation": ("adapter" if adapter else "finetune") if base_model else None,
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": task,
        "tags": ["gpurun", *tags],
        "model-index": [{"name": name, "results": [result]}],
    }


def dataset_name(settings: Any) -> str:
    """The training data by its name in the job, without where it lies on this machine."""
    places = next(getattr(settings, name) for name in ("train", "dataset", "corpus") if hasattr(settings, name))
    return ", ".join(map(shown_path, [places] if isinstance(places, str) else places))
