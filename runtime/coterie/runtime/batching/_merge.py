"""Many requests as one run, and the run's answers as many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coterie.runtime.engine._asked import Asked

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Merged:
    """Several requests' questions, about their distinct inputs.

    Attributes:
        asked: All questions, one request's after the other's; inputs that are the same are there once.
        first: [n + 1], where each request's questions begin.
        lengths: Each request's own length of its one sequence, where shorter ones were padded; else ``None``.
    """

    asked: Asked
    first: tuple[int, ...]
    lengths: tuple[int, ...] | None

    def cut(self, values: Floats, number: int, *, words: bool) -> Floats:
        """Return one request's part of scores or probabilities; with ``words``, its own words' only."""
        own = values[self.first[number] : self.first[number + 1]]
        if words and self.lengths is not None:
            own = own[:, : self.lengths[number]]
        return own


def merge(requests: Sequence[Asked]) -> Merged:
    """Join requests of one shape; sequences are padded with 0 to the longest among them."""
    if len(requests) == 1:
        return Merged(requests[0], (0, len(requests[0])), None)
    joined, lengths = {}, None
    for name in requests[0].inputs:
        tensors = [asked.inputs[name] for asked in requests]
        if len({each.shape[1:] for each in tensors}) > 1:
            lengths = tuple(each.shape[1] for each in tensors)
            tensors = [_padded(each, max(lengths)) for each in tensors]
        joined[name] = np.concatenate(tensors)
    offsets = np.cumsum([0, *(asked.distinct for asked in requests)])
    lines = [len(asked) for asked in requests]
    row = np.concatenate([asked.row for asked in requests]) + np.repeat(offsets[:-1], lines)
    task = np.concatenate([asked.task for asked in requests])
    distinct, place = _distinct(list(joined.values()))
    if len(distinct) < len(place):
        joined, row = {name: each[distinct] for name, each in joined.items()}, place[row]
    first = np.cumsum([0, *lines])
    return Merged(Asked(joined, row, task), tuple(first.tolist()), lengths)


def _padded(inputs: Array, length: int) -> Array:
    missing = length - inputs.shape[1]
    return np.pad(inputs, [(0, 0), (0, missing), *[(0, 0)] * (inputs.ndim - 2)])


def _distinct(tensors: Sequence[Array]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the first of each group of inputs that are equal in every tensor, and the group of each, [R]."""
    groups: dict[bytes, int] = {}
    first: list[int] = []
    place = np.empty(len(tensors[0]), dtype=np.int64)
    for number in range(len(place)):
        content = b"".join(each[number].tobytes() for each in tensors)
        group = groups.setdefault(content, len(groups))
        if group == len(first):
            first.append(number)
        place[number] = group
    return np.array(first, dtype=np.int64), place
