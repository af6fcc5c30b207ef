"""Whether a task's own session is worth its memory: asked of the machine, not of a rule."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

_ENOUGH = 1.1
"""A session of its own is worth it where the router takes longer than that, compared to it."""
_ROUNDS = 20
_STRETCH = 8
_COLD = 3
"""The first of a stretch, which find the cache as the other way has left it."""
_SECONDS = 0.25
"""No further round is begun after that; three are always asked."""
_FEWEST = 3


def own_sessions_pay(
    tasks: Sequence[int], own: Callable[[int], object], router: Callable[[int], object]
) -> bool:
    """Return whether single questions are answered so much faster by the tasks' own sessions.

    Args:
        tasks: Some tasks.
        own: Asks a task's own session about one input.
        router: Asks the router the same.
    """
    if not tasks:
        return False
    times: dict[Callable[[int], object], list[float]] = {own: [], router: []}
    began = time.perf_counter()
    for number in range(_ROUNDS):
        task = tasks[number % len(tasks)]
        for ask, seconds in times.items():
            # A task that is asked often finds its weights in the cache, which the other way has just emptied.
            for asked in range(_STRETCH):
                start = time.perf_counter()
                ask(task)
                if asked >= _COLD:
                    seconds.append(time.perf_counter() - start)
        if number + 1 >= _FEWEST and time.perf_counter() - began > _SECONDS:
            break
    return statistics.median(times[router]) > _ENOUGH * statistics.median(times[own])
