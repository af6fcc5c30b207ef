from __future__ import annotations

import asyncio

import numpy as np
import pytest

from coterie.runtime import load
from coterie.runtime.serving._async_engine import AsyncEngine
from coterie.runtime.serving._failures import UnavailableError

from ..handmade import HandMade


def test_one_request_more_than_may_wait_is_refused_and_the_rest_answered(features: HandMade) -> None:
    async def flood() -> list[object]:
        engine = AsyncEngine(load(features.path, threads=1), concurrency=1, max_waiting=3)
        inputs = np.ones((2000, 4), dtype=np.float32)
        answers = await asyncio.gather(
            *(engine.predict("topic", inputs) for _ in range(8)), return_exceptions=True
        )
        again = await engine.predict("topic", inputs[:1])  # the places are free again
        engine.close()
        return [*answers, again]

    answers = asyncio.run(flood())
    refused = [answer for answer in answers if isinstance(answer, UnavailableError)]
    assert len(refused) == 5
    assert not any(isinstance(answer, Exception) for answer in answers if answer not in refused)


def test_a_cancelled_request_gives_its_place_back(features: HandMade) -> None:
    async def cancel() -> None:
        engine = AsyncEngine(load(features.path, threads=1), concurrency=1, max_waiting=2)
        inputs = np.ones((2000, 4), dtype=np.float32)
        running = asyncio.create_task(engine.predict("topic", inputs))
        waiting = asyncio.create_task(engine.predict("mood", inputs))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert len(await running) == 2000
        await asyncio.gather(engine.predict("mood", inputs), engine.predict("tags", inputs))
        engine.close()

    asyncio.run(cancel())
