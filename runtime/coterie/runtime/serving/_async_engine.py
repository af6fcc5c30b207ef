"""The one asynchronous door to the engine, through which every front end asks."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from coterie.runtime._engine import Engine
from coterie.runtime._prediction import Prediction
from coterie.runtime.serving._failures import UnavailableError


class AsyncEngine:
    """Asks an engine from an event loop, a bounded number of questions at once.

    Args:
        engine: The engine; it is asked from ``concurrency`` threads.
        concurrency: Runs at once.
        max_waiting: Requests that may wait or run; one more is refused.
    """

    def __init__(self, engine: Engine, *, concurrency: int, max_waiting: int) -> None:
        self.engine = engine
        self._pool = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="coterie-engine")
        self._max_waiting = max_waiting
        self._waiting = 0

    async def predict(self, task: str, inputs: Any) -> Prediction:
        """Ask one task about R inputs; see ``Engine.predict``.

        Raises:
            UnavailableError: If as many requests as may wait are waiting.
        """
        return await self._run(functools.partial(self.engine.predict, task, inputs))

    async def predict_many(self, inputs: Any, row: Any, task: Any) -> Prediction:
        """Ask B questions about R inputs; see ``Engine.predict_many``.

        Raises:
            UnavailableError: If as many requests as may wait are waiting.
        """
        return await self._run(functools.partial(self.engine.predict_many, inputs, row, task))

    def close(self) -> None:
        """Let running questions finish and take no more."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _run(self, ask: Callable[[], Prediction]) -> Prediction:
        if self._waiting >= self._max_waiting:
            raise UnavailableError(f"{self._max_waiting} requests are waiting already: try again in a second")
        try:
            future = self._pool.submit(ask)
        except RuntimeError:
            raise UnavailableError("the server is shutting down: ask another one") from None
        self._waiting += 1
        loop = asyncio.get_running_loop()
        # A thread cannot be stopped: a request whose client is gone counts until its run ends.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._done))
        return await asyncio.wrap_future(future)

    def _done(self) -> None:
        self._waiting -= 1
