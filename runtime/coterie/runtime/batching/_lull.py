"""When to start a run: at once, or where all share one core, when the loop has nothing more to read."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from coterie.runtime._process import on_one_core

_TURNS = 8
"""Turns of the loop that must bring nobody: gRPC hands over one request in each, by way of other threads.
Where runs had few requests of late, only so many turns: hardly anybody is to come."""
_LONGEST = 0.02
"""Seconds after which a run starts all the same."""


async def lull(arrived: Callable[[], int], *, crowd: int = _TURNS, enough: Callable[[], bool] = bool) -> None:
    """Return when a run should start.

    With a core to itself a run goes on beside the loop, and starts at once. On one core it would take the
    time of whoever reads the next requests, and the batches be small: there it starts when a few turns of the
    loop have brought nobody. The core is not idle meanwhile.

    Args:
        arrived: Gives how many requests have come so far.
        crowd: About how many requests a run has had of late.
        enough: Tells whether more than those who have come would not fit a run.
    """
    if not on_one_core():
        return
    end = time.perf_counter() + _LONGEST
    left, seen = max(1, min(_TURNS, crowd)), arrived()
    while left and not enough() and time.perf_counter() < end:
        os.sched_yield()  # to threads that have a request for the loop
        await asyncio.sleep(0)
        came, seen = arrived() - seen, arrived()
        crowd += came
        left = min(_TURNS, crowd) if came else left - 1
