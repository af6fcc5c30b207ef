"""What a server tells of itself: each worker counts, any of them answers for all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from coterie.runtime._process import TELLING, step_back
from coterie.runtime.serving.models._models import Models
from coterie.runtime.serving.observing._board import Board, line_of, read_told
from coterie.runtime.serving.observing._exposition import exposition
from coterie.runtime.serving.observing._metrics import Metrics
from coterie.runtime.serving.observing._statistics import Told

T = TypeVar("T")

_LOG = logging.getLogger("coterie.serving")

SECONDS = 1.0
"""How often a worker tells the others: by so much their part of a sum may be late."""
_PAUSE = 0.003
"""Seconds between two parts of what is told. Runs of the engine come after all that is ready: without a pause
they wait until everything is told, of a thousand tasks 20 ms."""


class Reports:
    """Tells the other workers what this one counted, and adds theirs to its own.

    Args:
        models: The models, whose statistics are of all workers from now on.
        metrics: What this worker counts.
        board: Where the workers tell each other.
    """

    def __init__(self, models: Models, metrics: Metrics, board: Board) -> None:
        self._models = models
        self._metrics = metrics
        self._board = board
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._one = asyncio.Lock()  # or an older state could be written over a newer one
        # Of a thousand tasks the exposition takes 70 ms: runs of the engine should not wait for it.
        self._behind = ThreadPoolExecutor(1, "coterie-telling", initializer=step_back, initargs=(TELLING,))
        models.elsewhere = self._statistics

    def start(self) -> None:
        """Tell the others now and then, until ``stop``."""
        self._task = asyncio.get_running_loop().create_task(self._tell())

    async def stop(self) -> None:
        """Tell them a last time."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    def parts(self) -> Iterator[dict[str, Any]]:
        """Yield what this worker counted and holds, a little at a time, as JSON can have it."""
        waiting = sum(version.batcher.waiting for version in self._models.loaded.values())
        yield {
            "pid": os.getpid(),
            "waiting": self._models.turns.waiting + waiting,
            "versions": list(self._versions()),
        }
        for part in self._metrics.parts():
            yield {"metrics": part}
        for number, version in tuple(self._models.loaded.items()):
            for models in version.statistics.parts():
                yield {"statistics": {number: models}}

    async def exposition(self) -> bytes:
        """Return the metrics of all workers, for Prometheus."""
        async with self._one:
            return await self._aside(self._expose, await self._lines())

    def _expose(self, content: bytes) -> bytes:
        # First to the others: whichever is asked next must not say less, or a counter seems to begin anew.
        self._write(content)
        return exposition([read_told(content), *self._board.others()])

    async def _lines(self) -> bytes:
        """Return what this worker tells; questions are answered between two parts of it."""
        lines = []
        for part in self.parts():
            lines.append(line_of(part))
            await asyncio.sleep(0 if self._stopping.is_set() else _PAUSE)
        return b"\n".join(lines)

    async def _tell(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SECONDS):
                    await self._stopping.wait()
            async with self._one:
                await self._aside(self._write, await self._lines())

    async def _aside(self, work: Callable[[bytes], T], content: bytes) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._behind, work, content)

    def _write(self, content: bytes) -> None:
        try:
            self._board.write(content)
        except OSError as error:
            _LOG.warning("this worker's numbers are missing in what the others tell: %s", error)

    def _statistics(self, number: str) -> Sequence[Told]:
        others = (each["statistics"].get(number) for each in self._board.others())
        return [told for told in others if told]

    def _versions(self) -> Iterator[list[str]]:
        for number, version in self._models.loaded.items():
            yield [number, version.bundle.manifest.name, self._models.state(number)]
