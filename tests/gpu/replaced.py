"""Replaces functions for the time of a test, in every module that has imported them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PACKAGES = ("remote_payload", "transformers", "peft", "safetensors", "huggingface_hub", "tests")


@contextmanager
def replaced(original: Callable[..., Any], replacement: Callable[..., Any]) -> Iterator[None]:
    """Inside, each module of PACKAGES that knows ``original`` by some name finds ``replacement`` under it."""
    found = [
        (module, name)
        for title, module in list(sys.modules.items())
        if module is not None and title.partition(".")[0] in PACKAGES
        for name, value in list(vars(module).items())
        if value is original
    ]
    for module, name in found:
        setattr(module, name, replacement)
    try:
        yield
    finally:
        for module, name in found:
            setattr(module, name, original)


@contextmanager
def method_replaced(owner: Any, name: str, replacement: Any) -> Iterator[None]:
    """Inside, ``owner.name`` is ``replacement``; a method that was inherited is inherited again afterwards."""
    own = name in vars(owner)
    before = vars(owner).get(name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)
