"""When a run starts: at once, or on one core when nobody comes any more."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import Iterator

import pytest

from coterie.runtime import load
from coterie.runtime.batching import Batcher
from coterie.runtime.batching._lull import lull

from ..handmade import HandMade
from .test_batcher import Seen

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the cores of a process")


@pytest.fixture
def one_core() -> Iterator[None]:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


def runs_of_three(made: HandMade) -> list[int]:
    """Return how many requests had each run, of three that come in different turns of the loop."""
    seen = Seen()

    async def ask() -> None:
        batcher = Batcher(load(made.path, threads=1), observer=seen)

        async def late(turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            await batcher.predict("topic", made.inputs(1, seed=turns))

        await asyncio.gather(*map(late, (0, 4, 8)))
        await batcher.close()

    asyncio.run(ask())
    return [requests for requests, _, _ in seen.batches]


def test_on_one_core_a_run_waits_for_whoever_can_be_read(features: HandMade, one_core: None) -> None:
    assert runs_of_three(features) == [3]


@pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2,
    reason="there is but one core, as far as known",
)
def test_with_a_core_to_itself_a_run_starts_at_once(features: HandMade) -> None:
    assert runs_of_three(features)[0] == 1


def test_a_run_starts_even_if_somebody_comes_in_every_turn(one_core: None) -> None:
    everybody = itertools.count()
    began = time.perf_counter()
    asyncio.run(asyncio.wait_for(lull(lambda: next(everybody)), 10))
    assert time.perf_counter() - began < 1


def test_who_waits_for_a_flood_alone_makes_it_start_at_once(one_core: None) -> None:
    arrivals = itertools.count()

    async def turns() -> float:
        began = time.perf_counter()
        await lull(lambda: next(arrivals), lambda: next(arrivals) > 4)
        return time.perf_counter() - began

    assert asyncio.run(turns()) < 0.015
