"""TensorBoard on this machine."""

from __future__ import annotations

from typing import TypedDict


class TensorBoard(TypedDict):
    address: str
    runs: list[str]
