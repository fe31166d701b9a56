"""A checkpoint as a finished model: the folder that ``models/best`` is, in the form of peft and transformers, with the weights of one step.

What only the run itself knew (its data, its settings, the history of its evaluations) is not in the card.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import cast

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedTokenizerBase

from remote_payload.settings.generation import Generation
from remote_payload.train.download import BaseFacts, BaseModel
from remote_payload.train.files import read_json_object, write_text
from remote_payload.train.model.causal import Network
from remote_payload.train.model.causal_files import save_causal
from remote_payload.train.model.classifier import Classifier, save_classifier
from remote_payload.train.model.model_facts import ModelFacts, prompting_of, read_model_facts, write_model_facts
from remote_payload.train.results.card import base_metadata
from remote_payload.train.results.usage import causal_usage, classifier_usage
from remote_payload.train.state.best import Weights, write_metrics
from remote_payload.train.state.progress import EvaluationResult

CONFIG = "adapter_config.json"
# What a model is asked that has no rows of its run.
TEXTS = (
    "The licensor grants you a licence to copy, modify and distribute the work, without warranty of any kind.",
    "The ship left London in the spring of 1823.",
    "Install the package, import it, and look at the figures it prints.",
    "Who was the mayor of the town in 1901?",
)
CARD = """\
---
{metadata}
---

# {title}

{summary}

## Use

```python
{usage}
```
"""


def write_finished_model(
    checkpoint: Path,
    model: Classifier | Network,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    dtype: torch.dtype,
    title: str,
) -> None:
    """Fills ``folder`` with the model of ``checkpoint``, which is loaded as ``model`` and ``tokenizer``; its card is called ``title``.

    ``dtype`` is that of the weights in training: a whole model is written in it, an adapter and a head as they are. Raises InputError
    for a folder that is no checkpoint.
    """
    about, evaluation = read_model_facts(checkpoint), _evaluation(checkpoint)
    base = base_of(about.get("base"))
    network = model.encoder if isinstance(model, Classifier) else model
    if not isinstance(network, PeftModel):
        network.to(dtype)
    if isinstance(model, Classifier):
        assert base  # a classifier is never trained from nothing
        save_classifier(model, tokenizer, folder, base, about)
        usage = classifier_usage(base, about["labels"], about["max_length"], model)
    else:
        _take_generation_settings(model, checkpoint)
        save_causal(model, tokenizer, folder, base, prompting_of(about))
        usage = causal_usage(model, tokenizer, base, prompting_of(about), Generation())
    if isinstance(network, PeftModel):
        _keep_order(checkpoint / CONFIG, folder / CONFIG)
    for written in tokenizer.save_pretrained(
        str(folder)
    ):  # as training left it: the one in memory remembers how it was used
        if (own := checkpoint / Path(written).name).is_file():
            shutil.copyfile(own, written)
    facts: ModelFacts = {**read_model_facts(folder), "dtype": str(dtype).removeprefix("torch.")}
    if evaluation:
        facts["step"] = evaluation["step"]
        write_metrics(folder, Weights(evaluation, None), evaluation["metrics"])
    write_model_facts(folder, facts)
    write_text(folder / "README.md", _card(title, checkpoint.name, facts, base, usage, evaluation))


def base_of(facts: BaseFacts | None) -> BaseModel | None:
    """The base model that gpurun.json describes; None for a model that was trained from nothing."""
    if not facts:
        return None
    name = str(facts.get("id"))
    return BaseModel(name, facts.get("path") or name, facts.get("revision"), facts.get("sha256"), facts.get("licence"))


def _evaluation(checkpoint: Path) -> EvaluationResult | None:
    """What was measured of the checkpoint's own step, where it was saved after that."""
    state = read_json_object(checkpoint / "state.json")
    own = [entry for entry in state.get("evaluations") or [] if entry["step"] == state.get("step")]
    return cast("EvaluationResult", own[-1]) if own else None


def _take_generation_settings(network: Network, checkpoint: Path) -> None:
    """What ``generate`` does by itself: a whole model was made from its configuration alone, which does not say it."""
    if (checkpoint / "generation_config.json").is_file() and not isinstance(network, PeftModel):
        network.generation_config = GenerationConfig.from_pretrained(str(checkpoint))


def _keep_order(own: Path, written: Path) -> None:
    """Lists of the adapter's configuration in the order of the checkpoint's: peft keeps sets, whose order each process makes anew."""
    before, after = read_json_object(own), read_json_object(written)
    for name, value in after.items():
        if isinstance(value, list) and sorted(value) == sorted(before.get(name) or []):
            after[name] = before[name]
    write_text(written, json.dumps(after, indent=2, sort_keys=True))


def _card(
    title: str,
    checkpoint: str,
    facts: ModelFacts,
    base: BaseModel | None,
    usage: str,
    evaluation: EvaluationResult | None,
) -> str:
    adapter = bool(facts.get("adapter"))
    task = "text-classification" if facts.get("kind") == "classifier" else "text-generation"
    metadata = base_metadata(base, task, adapter=adapter, tags=[str(facts["recipe"])] if "recipe" in facts else [])
    origin = f"`{base.name}`" if base else "nothing"
    what = f"A LoRA adapter for {origin}" if adapter else f"A model, trained from {origin}"
    text = CARD.format(
        metadata=metadata.to_yaml().strip(),
        title=title,
        summary=f"{what}. These are the weights of one checkpoint of the training, `{checkpoint}`.",
        usage=usage.strip(),
    )
    if evaluation:
        rows = "\n".join(f"| {metric} | {_number(value)} |" for metric, value in evaluation["metrics"].items())
        place = f"step {evaluation['step']}, epoch {evaluation['epoch']:.2f}"
        text += f"\n## Results\n\nMeasured at {place}.\n\n| metric | value |\n|---|---|\n{rows}\n"
    return text + "\nTrained with gpurun.\n"


def _number(value: object) -> str:
    return f"{value:,.4f}" if isinstance(value, float) else str(value)
