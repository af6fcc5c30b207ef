"""Counters and histograms in plain memory, that the workers of one server add up."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, NamedTuple, TypeVar

_LITTLE = 50

T = TypeVar("T")
Key = tuple[str, ...]
"""A family's name, and the values of its labels."""


class Family(NamedTuple):
    """What is counted under one name, once for each set of label values.

    Attributes:
        name: As Prometheus has it, without the ending ``_total`` of a counter.
        about: In words.
        labels: Names of the labels.
        bounds: Of a histogram the upper bounds of its buckets, ascending; none is a counter.
    """

    name: str
    about: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


@dataclass(slots=True)
class Sums:
    """Values by family and labels; a histogram is its buckets' counts, one past the last, and the sum."""

    counters: dict[Key, float] = field(default_factory=dict)
    histograms: dict[Key, list[float]] = field(default_factory=dict)

    def add(self, told: Mapping[str, Any]) -> None:
        """Add a part of what a worker told, as ``Tally.parts`` has it."""
        for key, value in told["counters"]:
            self.counters[tuple(key)] = self.counters.get(tuple(key), 0) + value
        for key, values in told["histograms"]:
            before = self.histograms.get(tuple(key))
            pairs = values if before is None else [a + b for a, b in zip(before, values, strict=True)]
            self.histograms[tuple(key)] = list(pairs)


class Tally:
    """Counts in this process: a dictionary, because every request pays for it.

    Only ``parts`` and ``forget`` take the ``lock`` themselves; who counts takes it once for all it counts.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self._sums = Sums()

    def count(self, family: Family, *labels: str, amount: float = 1) -> None:
        """Add to a counter."""
        counters, key = self._sums.counters, (family.name, *labels)
        counters[key] = counters.get(key, 0) + amount

    def observe(self, family: Family, value: float, *labels: str) -> None:
        """Add a value to a histogram."""
        key = (family.name, *labels)
        histogram = self._sums.histograms.get(key)
        if histogram is None:
            histogram = self._sums.histograms[key] = [0.0] * (len(family.bounds) + 2)
        histogram[bisect_left(family.bounds, value)] += 1
        histogram[-1] += value

    def forget(self, families: Iterable[Family], label: str) -> None:
        """Drop what these families have under one value of their first label."""
        names = {family.name for family in families}
        with self.lock:
            for values in (self._sums.counters, self._sums.histograms):
                for key in [key for key in values if key[0] in names and key[1:2] == (label,)]:
                    del values[key]

    def parts(self) -> Iterator[dict[str, list[Any]]]:
        """Yield everything, a little at a time, as JSON can have it; each as it is when it is yielded."""
        with self.lock:
            counters, histograms = list(self._sums.counters), list(self._sums.histograms)
        for keys in little_by_little(counters):
            with self.lock:
                known = self._sums.counters
                told: list[Any] = [[list(key), known[key]] for key in keys if key in known]
            yield {"counters": told, "histograms": []}
        for keys in little_by_little(histograms):
            with self.lock:
                measured = self._sums.histograms
                told = [[list(key), list(measured[key])] for key in keys if key in measured]
            yield {"counters": [], "histograms": told}


def little_by_little(entries: list[T]) -> Iterator[list[T]]:
    """Yield so many entries at a time that telling them keeps nobody waiting."""
    for start in range(0, len(entries), _LITTLE):
        yield entries[start : start + _LITTLE]
