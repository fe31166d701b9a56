"""The finished card: README.md with the metadata that the Hub reads (https://huggingface.co/docs/hub/model-cards).

The box writes the card of a run's model, results and all. Here the base model is checked on the Hub, its licence is taken over, and a
folder that gpurun never saw gets the card that it lacks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from remote_payload.publish.evaluation import Evaluated
from remote_payload.publish.problem import PublishProblem

if TYPE_CHECKING:
    from huggingface_hub import HfApi

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]*[A-Za-z0-9]")
# Licences that let anybody pass on what is made of the model, with no more than a notice.
OPEN = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "cc0-1.0", "cc-by-4.0", "unlicense", "odc-by")
NO_CARD = "# {title}\n\n{summary}\n"


@dataclass(frozen=True)
class Model:
    """What the folder says of the model: its base as it is named there (None: trained from nothing), whether that was a folder."""

    base: str | None
    base_was_folder: bool
    adapter: bool
    language_model: bool

    @property
    def base_on_hub(self) -> str | None:
        """The base's name where it can be one of the Hub."""
        named = None if self.base_was_folder else self.base
        return named if named and HUB_NAME.fullmatch(named) else None


@dataclass(frozen=True)
class Base:
    """A base model as the Hub describes it. ``licence`` are the fields of its card: license, license_name, license_link."""

    name: str
    licence: Mapping[str, str]
    gated: bool


def read_model(about: Mapping[str, Any], adapter: Mapping[str, Any] | None, config: Mapping[str, Any]) -> Model:
    """From ``gpurun.json``, ``adapter_config.json`` (None where there is none) and ``config.json``; each may be empty."""
    facts = about.get("base") or {}
    base = facts.get("id") or (adapter or {}).get("base_model_name_or_path")
    architectures = " ".join(map(str, config.get("architectures") or ()))
    language = about.get("kind") == "causal_lm" or (adapter or {}).get("task_type") == "CAUSAL_LM"
    return Model(
        base=base if isinstance(base, str) else None,
        base_was_folder=bool(facts.get("path")) or str(base).startswith(("./", "/", "~")),
        adapter=adapter is not None,
        language_model=language or "ForCausalLM" in architectures or "LMHead" in architectures,
    )


def look_up_base(api: HfApi, name: str, token: str | None) -> Base | None:
    """The base model on the Hub; None where it knows none of that name. Raises the client's errors when it cannot be asked."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        info = api.model_info(name, token=token or False)
    except GatedRepoError:
        return Base(name, {}, gated=True)
    except RepositoryNotFoundError:
        return None
    fields = ("license", "license_name", "license_link")
    licence = {key: str(info.card_data[key]) for key in fields if info.card_data and info.card_data.get(key)}
    return Base(info.id or name, licence, bool(info.gated))


def finish_card(
    text: str | None,
    model: Model,
    base: Base | None,
    title: str,
    forms: Sequence[str] = (),
    evaluated: Evaluated | None = None,
) -> tuple[str, list[str]]:
    """The card, and remarks about its licence for whoever publishes. ``forms`` are lines about other forms that lie beside the model; the
    table of ``evaluated`` and its figures are added.

    Raises PublishProblem for a card whose metadata cannot be read.
    """
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    if text is None:
        text = "---\ntags: [gpurun]\n---\n\n" + NO_CARD.format(title=title, summary=_summary(model, base))
    try:
        # A card without metadata is an empty head for the client, which would warn of it.
        card = ModelCard(text if text.lstrip().startswith("---") else f"---\n{{}}\n---\n\n{text}")
    except (ValueError, TypeError, YAMLError) as error:
        raise PublishProblem(
            f"the metadata at the top of README.md cannot be read: {str(error).splitlines()[0]}",
            hint="Repair the lines between the two `---`, or remove them.",
        ) from None
    data: Any = card.data
    remarks = _take_licence(data, model, base)
    data.base_model = base.name if base else None
    data.base_model_relation = ("adapter" if model.adapter else "finetune") if base else None
    data.library_name = data.library_name or ("peft" if model.adapter else "transformers")
    if model.language_model:
        data.pipeline_tag = data.pipeline_tag or "text-generation"
    # peft writes the base's path into a tag too; the Hub makes such tags of base_model itself.
    data.tags = [tag for tag in data.tags or [] if not str(tag).startswith("base_model:")] or None
    if evaluated:
        card.text = f"{card.text.rstrip()}\n\n{evaluated.section()}"
        data.model_name = data.model_name or title
        task = data.pipeline_tag or ("text-generation" if model.language_model else "text-classification")
        data.eval_results = [*(data.eval_results or []), *evaluated.results(task)]
    if forms:
        lines = "\n".join(f"- {line}" for line in forms)
        card.text = f"{card.text.rstrip()}\n\n## Other forms\n\n{lines}\n"
    return str(card), remarks


def _take_licence(data: Any, model: Model, base: Base | None) -> list[str]:
    """Completes the licence from the base's; gives what whoever publishes should know of it."""
    own = data.license if isinstance(data.license, str) else None
    theirs = base.licence.get("license") if base else None
    if base and theirs:
        if own in (None, "other") and not data.get("license_name"):
            for key, value in base.licence.items():
                data[key] = value
        elif own != theirs:
            return [
                f"the card's licence is {own}, that of the base model {base.name} is {theirs}: look whether that is allowed"
            ]
        named = base.licence.get("license_name", theirs)
        if theirs in OPEN:
            return []
        return [
            f"the base model's licence ({named}) has conditions for what is made of it: read it before others get this model"
        ]
    data.license = own or "other"
    if base:
        return [f"the base model {base.name} names no licence on the Hub; the card says {data.license}"]
    if model.base:
        return [f"the base model is not on the Hub, so its licence was not checked; the card says {data.license}"]
    return []


def _summary(model: Model, base: Base | None) -> str:
    what = "A LoRA adapter" if model.adapter else "A model"
    return f"{what} of [{base.name}](https://huggingface.co/{base.name})." if base else f"{what}."
