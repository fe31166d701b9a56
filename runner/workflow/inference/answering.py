"""How a language model is told to answer: what the user said, over how the answers in its run's own reports were generated."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from remote_payload.settings import RECIPES, settings_class
from remote_payload.settings.generation import Answering
from runner.domain.errors import UserError
from runner.domain.run import Run

NAMES = tuple(field.name for field in dataclasses.fields(Answering))


def answering(of_training: Answering | None, told: Mapping[str, Any], otherwise: Answering | None = None) -> Answering:
    """What the user ``told`` (None: not) over ``of_training``; ``otherwise`` is for a model that comes from no such training.

    Raises UserError for a system message in a file that cannot be read.
    """
    said = {name: value for name, value in told.items() if value is not None}
    if "system_prompt" in said:
        said["system_prompt"] = text_of(said["system_prompt"], "--system-prompt")
    return dataclasses.replace(of_training or otherwise or Answering(), **said)


def answering_of(run: Run | None) -> Answering | None:
    """How the answers in the run's own reports are generated, as its job and its recipe's defaults say; None where it generates none."""
    if run is None:
        return None
    given = run.job.setting("generation")
    recipe = run.job.recipe or ""
    known = recipe in RECIPES and "generation" in {each.name for each in dataclasses.fields(settings_class(recipe))}
    if not known and not isinstance(given, dict):
        return None
    return Answering(**{name: given[name] for name in NAMES if name in given} if isinstance(given, dict) else {})


def text_of(word: str, option: str) -> str:
    """The word itself, or for ``@FILE`` what is in the file, without its last line break. Raises UserError naming the ``option``."""
    if not word.startswith("@"):
        return word
    file = Path(word[1:]).expanduser()
    try:
        return file.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{option}: {file} cannot be read: {error}", hint="It is a text, or @FILE.") from None
