"""Several ways to do the same, timed side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Ways = Mapping[str, Callable[[], object]]

_LEAST_ROUNDS = 5
_WARM_UP = 2


@dataclass(frozen=True)
class Times:
    """How long one way took, over many rounds.

    Attributes:
        median_ms: Milliseconds of the middle one.
        p99_ms: Milliseconds that 99 of 100 took at most.
        rounds: How often it was timed.
    """

    median_ms: float
    p99_ms: float
    rounds: int


def side_by_side(ways: Ways, *, seconds: float) -> dict[str, Times]:
    """Time several ways in turn, round by round, so that a machine's drift hits all alike.

    Args:
        ways: What is timed, by name.
        seconds: For how long; at least five rounds are made.
    """
    for way in ways.values():
        for _ in range(_WARM_UP):
            way()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < _LEAST_ROUNDS or time.perf_counter() < end:
        rounds += 1
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            taken[name].append(1000 * (time.perf_counter() - began))
    return {
        name: Times(round(float(np.median(own)), 4), round(float(np.quantile(own, 0.99)), 4), rounds)
        for name, own in taken.items()
    }
