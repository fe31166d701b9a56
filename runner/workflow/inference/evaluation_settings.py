"""What an evaluation is told: the command line over what the job of a fetched run says, as the recipe's settings."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from remote_payload.settings.evaluate import EvaluateSettings
from remote_payload.settings.generation import Answering
from remote_payload.settings.reading import SettingError, read_settings
from runner.domain.errors import UserError
from runner.domain.run import Run
from runner.workflow.inference.answering import NAMES, answering_of, text_of

# Settings of a training job that an evaluation has too, under its own names.
OF_THE_JOB = {
    "text_field": "text_field",
    "label_field": "label_field",
    "messages_field": "messages_field",
    "completion_field": "answer_field",
    "json_extraction": "json_answers",
    "schema_field": "schema_field",
}
WAY = re.compile(rf"({'|'.join(NAMES)})=.*", re.DOTALL)
HELP = "docs/evaluate.md lists them."


def evaluation_settings(
    models: Sequence[Mapping[str, object]],
    data: Path,
    run: Run | None,
    *,
    overrides: Sequence[str] = (),
    grid: Sequence[str] = (),
    **chosen: object,
) -> EvaluateSettings:
    """The settings: what was ``chosen`` on the command line (None: not), ``overrides`` (KEY=VALUE) and ``grid`` over those of the
    ``run``'s job. Raises UserError for a setting that there is not, or a value that it cannot have."""
    told = {mine: run.job.setting(its) for its, mine in OF_THE_JOB.items()} if run else {}
    values: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
    values |= {name: value for name, value in chosen.items() if value is not None}
    values |= dict(_pair(each, "--set") for each in overrides)
    values |= {
        "models": list(models),
        "data": str(data.absolute()),
        "asking": ways(grid, asdict(answering_of(run) or Answering())),
    }
    if values.get("schema"):
        values["schema"] = str(Path(str(values["schema"])).expanduser().absolute())
    try:
        settings: EvaluateSettings = read_settings(EvaluateSettings, values, "")
    except SettingError as error:
        raise UserError(str(error).lstrip("."), hint=HELP) from None
    return settings


def ways(grid: Sequence[str], defaults: Mapping[str, object]) -> list[dict[str, object]]:
    """One way to ask for each combination of the ``NAME=VALUE,VALUE`` words; its name has what differs. Raises UserError."""
    axes = [_axis(word) for word in grid]
    if len({name for name, _ in axes}) < len(axes):
        raise UserError("--grid names a setting twice")
    found = []
    for chosen in itertools.product(*(points for _, points in axes)):
        pairs = list(zip(axes, chosen, strict=True))
        name = " ".join(f"{axis}={shown}" for (axis, points), (shown, _) in pairs if len(points) > 1)
        found.append({**defaults, "name": name, **{axis: value for (axis, _), (_, value) in pairs}})
    return found


def _axis(word: str) -> tuple[str, list[tuple[str, object]]]:
    """A setting and its values, each with how it is shown: a file of a system prompt by its name."""
    name, _, values = word.partition("=")
    if not WAY.fullmatch(word) or not all(values.split(",")):
        raise UserError(f"--grid {word}: expected NAME=VALUE,VALUE with a name among {', '.join(NAMES)}")
    if name == "system_prompt":
        return name, [(Path(each).name, text_of(f"@{each}", f"--grid {name}=").strip()) for each in values.split(",")]
    return name, [(each, _number(each, word)) for each in values.split(",")]


def _number(text: str, word: str) -> int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise UserError(f"--grid {word}: {text!r} is no number")


def _pair(word: str, option: str) -> tuple[str, object]:
    name, equals, text = word.partition("=")
    if not equals or not name:
        raise UserError(f"{option} {word}: expected KEY=VALUE, such as {option} answer_field=expected", hint=HELP)
    try:
        if name == "prompt_template":
            return name, text_of(text, f"{option} {name}=")
        return name, yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{option} {word}: {error}") from None
