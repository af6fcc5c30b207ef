"""When to start a run: at once, or where all share one core, when the loop has nothing more to read."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from coterie.runtime._process import on_one_core

_TURNS = 8
"""Turns of the loop that must bring nobody: gRPC hands over one request in each, by way of other threads.
Fewer, where runs had few requests of late, would keep them so: who waits in gRPC's queue cannot be seen."""
_LONGEST = 0.02
"""Seconds after which a run starts all the same."""
_SHORTER = 0.002
"""And where some wait for a flood alone. What gRPC holds of it has to be read: they may be behind it."""


async def lull(arrived: Callable[[], int], pressing: Callable[[], bool] = lambda: False) -> None:
    """Return when a run should start.

    With a core to itself a run goes on beside the loop, and starts at once. On one core it would take the
    time of whoever reads the next requests, and the batches be small: there it starts when a few turns of the
    loop have brought nobody. The core is not idle meanwhile.

    Args:
        arrived: Gives how many requests have come so far.
        pressing: Tells whether some wait for nothing but a flood, which always has more to read.
    """
    if not on_one_core():
        return
    began = time.perf_counter()
    left, seen = _TURNS, arrived()
    while left and time.perf_counter() < began + (_SHORTER if pressing() else _LONGEST):
        os.sched_yield()  # to threads that have a request for the loop
        await asyncio.sleep(0)
        left, seen = (left - 1 if arrived() == seen else _TURNS), arrived()
