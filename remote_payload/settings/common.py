"""The settings that all recipes share: what the training core reads, whatever the recipe is."""

from __future__ import annotations

from dataclasses import Field
from typing import Any, ClassVar, Dict, Optional, Protocol

from remote_payload.settings.training import Batch, Checkpoint, Evaluation, Optimizer, Schedule


class CommonSettings(Protocol):
    """A dataclass with these fields. They are read only here, so that a recipe may narrow a type: ``precision`` is a Literal."""

    __dataclass_fields__: ClassVar[Dict[str, Field[Any]]]

    @property
    def model(self) -> Any: ...

    @property
    def max_length(self) -> int: ...

    @property
    def epochs(self) -> float: ...

    @property
    def max_steps(self) -> Optional[int]: ...

    @property
    def seed(self) -> int: ...

    @property
    def precision(self) -> str: ...

    @property
    def resume(self) -> Optional[str]: ...

    @property
    def smoke_rows(self) -> int: ...

    @property
    def optimizer(self) -> Optimizer: ...

    @property
    def schedule(self) -> Schedule: ...

    @property
    def batch(self) -> Batch: ...

    @property
    def checkpoint(self) -> Checkpoint: ...

    @property
    def evaluation(self) -> Evaluation: ...
