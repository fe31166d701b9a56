from __future__ import annotations

from typing import Any

import pytest

from remote_payload.settings import RECIPES, settings_class
from remote_payload.settings.classify import ClassifySettings
from remote_payload.settings.metrics import is_higher_better, metrics_of
from remote_payload.settings.reading import SettingError, read_settings

NEEDED = {"model": "m", "train": "d"}


def test_what_is_left_out_has_its_default_in_every_group() -> None:
    settings = read_settings(ClassifySettings, {**NEEDED, "batch": {"size": 64}})
    assert (settings.batch.size, settings.batch.micro, settings.optimizer.beta2) == (64, "auto", 0.999)
    assert settings == read_settings(ClassifySettings, {**NEEDED, "batch": {"size": 64}, "optimizer": {}})


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        ({"optimizer": {"learning_rate": "3e-4"}}, "optimizer.learning_rate", 3e-4),  # YAML 1.1 reads 3e-4 as text
        ({"epochs": 2}, "epochs", 2.0),
        ({"batch": {"micro": 4}}, "batch.micro", 4),
        ({"lora": {"targets": ["query"]}}, "lora.targets", ["query"]),
        ({"labels": [0, 1, "other"]}, "labels", [0, 1, "other"]),
        ({"evaluation": {"every_epochs": None}}, "evaluation.every_epochs", None),
        ({"batch": {"compile": True}}, "batch.compile", True),
    ],
)
def test_values_become_what_the_setting_is(given: dict[str, Any], name: str, expected: Any) -> None:
    value: Any = read_settings(ClassifySettings, {**NEEDED, **given})
    for part in name.split("."):
        value = getattr(value, part)
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "m"}, "settings.train: is required: Training data"),
        ({**NEEDED, "max_lenght": 1}, "settings.max_lenght: no such setting; did you mean max_length?"),
        ({**NEEDED, "batch": {"sise": 1}}, "settings.batch.sise: no such setting; did you mean size?"),
        ({**NEEDED, "batch": 3}, "settings.batch: expected a mapping, got 3"),
        ({**NEEDED, "batch": {"micro": "four"}}, "settings.batch.micro: expected a whole number or 'auto', got 'four'"),
        ({**NEEDED, "batch": {"size": True}}, "settings.batch.size: expected a whole number, got True"),
        ({**NEEDED, "batch": {"size": 1.5}}, "settings.batch.size: expected a whole number, got 1.5"),
        ({**NEEDED, "epochs": "many"}, "settings.epochs: expected a number, got 'many'"),
        (
            {**NEEDED, "schedule": {"name": "step"}},
            "settings.schedule.name: expected 'cosine' or 'linear' or 'constant', got 'step'",
        ),
        ([], "settings: expected a mapping, got []"),
        ({**NEEDED, "epochs": -1}, "settings.epochs: must be greater than 0, got -1"),
        ({**NEEDED, "epochs": float("inf")}, "settings.epochs: expected a number, got inf"),
        ({**NEEDED, "epochs": ".nan"}, "settings.epochs: expected a number, got '.nan'"),
        ({**NEEDED, "epochs": "nan"}, "settings.epochs: expected a number, got nan"),
        ({**NEEDED, "max_steps": 0}, "settings.max_steps: must be at least 1, got 0"),
        ({**NEEDED, "validation_share": 1}, "settings.validation_share: must be less than 1, got 1.0"),
        ({**NEEDED, "batch": {"size": 0}}, "settings.batch.size: must be at least 1, got 0"),
        ({**NEEDED, "batch": {"micro": -4}}, "settings.batch.micro: must be at least 1, got -4"),
        (
            {**NEEDED, "optimizer": {"learning_rate": "-3e-4"}},
            "settings.optimizer.learning_rate: must be greater than 0, got -0.0003",
        ),
        ({**NEEDED, "schedule": {"final": 1.5}}, "settings.schedule.final: must be at most 1, got 1.5"),
        ({**NEEDED, "labels": ["legal", "legal", "other"]}, "settings.labels: names 'legal' more than once"),
    ],
)
def test_what_does_not_fit_is_named_by_its_path(given: Any, message: str) -> None:
    with pytest.raises(SettingError) as error:
        read_settings(ClassifySettings, given)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_says_what_it_can_be_told(recipe: str) -> None:
    import dataclasses

    for field in dataclasses.fields(settings_class(recipe)):
        assert field.metadata["description"].endswith((".", "?")), field.name


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_knows_which_way_its_metrics_are_better(recipe: str) -> None:
    known = metrics_of(recipe, {"binary_threshold": 3})
    assert known["loss"] is False and "loss" in known
    assert all(known[name] for name in known if "accuracy" in name or "f1" in name)
    assert is_higher_better(known, "lossy") is None


def test_a_metric_with_a_setting_in_its_name_exists_where_the_setting_is_given() -> None:
    assert metrics_of("classify", {"binary_threshold": 3})["binary_f1_3"] is True
    assert not [name for name in metrics_of("classify", {"binary_threshold": None}) if name.startswith("binary")]


@pytest.mark.parametrize(
    ("name", "higher"),
    [("loss/birthdays", False), ("accuracy/a/b", True), ("accuracy/", None), ("f1/birthdays", None), ("/x", None)],
)
def test_a_metric_of_one_evaluation_set_is_better_the_way_that_metric_is(name: str, higher: bool | None) -> None:
    assert is_higher_better(metrics_of("finetune", {}), name) is higher
    assert is_higher_better(metrics_of("sft", {}), "loss/birthdays") is None


@pytest.mark.parametrize("recipe", RECIPES)
def test_by_hand_every_bound_that_the_laptop_checks_is_checked(recipe: str) -> None:
    """A value beyond each bound of each setting is refused by the setting's name, as ``gpurun validate`` refuses it."""
    import dataclasses
    import typing

    def beyond(kind: Any, path: tuple[str, ...]) -> typing.Iterator[tuple[tuple[str, ...], float]]:
        types = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if dataclasses.is_dataclass(types[field.name]):
                yield from beyond(types[field.name], (*path, field.name))
            whole = int in (types[field.name], *typing.get_args(types[field.name]))
            for bound, step in (("gt", 0), ("ge", -1), ("lt", 0), ("le", 1)):
                if bound in field.metadata:
                    value = field.metadata[bound] + step
                    yield (*path, field.name), (int(value) if whole else float(value))

    kind = settings_class(recipe)
    needed = {field.name: "x" for field in dataclasses.fields(kind) if field.name in ("model", "train", "dataset", "corpus", "adapter")
              and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING}  # fmt: skip
    read_settings(kind, needed)
    tried = list(beyond(kind, ()))
    assert len(tried) > 20
    for path, value in tried:
        given: Any = value
        for name in reversed(path):
            given = {name: given}
        with pytest.raises(SettingError, match=rf"^settings\.{'.'.join(path)}: must be "):
            read_settings(kind, {**needed, **given})
