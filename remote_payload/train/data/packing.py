"""Several documents one after another in one row, without padding.

A packed batch is one row of ``T`` tokens with the bounds of its documents; ``model/attention.py`` keeps a document from seeing others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

IGNORED = -100  # a target that the loss does not count


@dataclass(frozen=True)
class Document:
    """Token ids, and for each whether the model is to learn to predict it."""

    ids: list[int]
    learn: list[bool]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def targets(self) -> list[int]:
        """The target of each position: the next token if it is to be learnt, else ``IGNORED``."""
        following = zip(self.ids[1:], self.learn[1:], strict=True)
        return [token if learnt else IGNORED for token, learnt in following] + [IGNORED]

    @property
    def counted(self) -> int:
        """How many tokens the loss counts; the first token has nothing before it and cannot be predicted."""
        return sum(self.learn[1:])


def counted_positions(targets: Tensor) -> Tensor:
    """Where in the flattened ``targets`` the loss counts one.

    A batch brings them along, computed on the CPU: to find them on the device, the host would have to wait for it.
    """
    return (targets.reshape(-1) != IGNORED).nonzero().squeeze(-1)


def pack(documents: Sequence[Document]) -> dict[str, Any]:
    """The documents as one batch: ``input_ids, targets, position_ids`` ``[1, T]``, the positions ``counted``, and the documents' bounds.

    Positions start again at 0 with each document. The bounds are there for the device (``cu_seq_lens_q``) and for the host: the
    longest document's length and the lengths of all, as plain numbers.
    """
    lengths = [len(document) for document in documents]
    bounds = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    targets = torch.tensor([[target for document in documents for target in document.targets]])
    positions = torch.cat([torch.arange(length) for length in lengths])
    return {
        "input_ids": torch.tensor([[token for document in documents for token in document.ids]]),
        "targets": targets,
        "counted": counted_positions(targets),
        "position_ids": positions.unsqueeze(0),
        "cu_seq_lens_q": bounds,
        "max_length_q": max(lengths),
        "document_lengths": tuple(lengths),
    }


def first_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of ``lengths`` in groups of at most ``capacity`` tokens, packed first-fit decreasing.

    That gives at most 11/9 of the smallest possible number of groups, plus a constant (Johnson 1973). An item over the capacity gets
    a group of its own.
    """
    groups: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        place = next((group for group, left in enumerate(room) if lengths[index] <= left), None)
        if place is None:
            groups.append([])
            room.append(capacity)
            place = len(groups) - 1
        groups[place].append(index)
        room[place] -= lengths[index]
    return groups
