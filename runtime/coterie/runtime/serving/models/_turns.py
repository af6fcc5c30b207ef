"""Whose question is read next: a flood on one task waits before it has cost the others anything.

Reading a question and writing its answer take a server longer than computing it. A queue in front of the
engine is fair too late: by then a flood's questions are read. So while several tasks are asked, each has only
a few questions in hand, unless the others have as many; what it is asked beyond that waits as the bytes that
came.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable

from coterie.runtime.batching import Limits
from coterie.runtime.batching._queue import fair_share
from coterie.runtime.errors import OverloadedError

_FEW = 4
"""Questions that a task may always have in hand: what whoever comes next waits for."""
_RECENT = 1.0
"""Seconds after which a task that nobody asked any more is nobody to be fair to."""


class Turns:
    """Counts the questions in hand, and lets those of a task that has its share of them wait.

    All of it belongs to one event loop.

    Args:
        limits: Of one task as many questions may wait as rows, and of all as many bytes; more are refused.
        clock: Gives the seconds.
    """

    def __init__(
        self, limits: Limits | None = None, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._limits, self._clock = limits or Limits(), clock
        self._in_hand = Counter[str]()
        self._all = 0
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._held = 0
        # The two tasks that were asked last, and when.
        self._last, self._last_at = "", float("-inf")
        self._before_at = float("-inf")
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def waiting(self) -> int:
        """Questions that wait for their turn."""
        return sum(len(each) for each in self._waiting.values())

    @contextlib.asynccontextmanager
    async def of(self, task: str, nbytes: int) -> AsyncIterator[float | None]:
        """Have the turn of a question of so many bytes, from when it may be read until its answer is written.

        Gives since when it waited, or nothing where it did not.
        """
        since = await self._enter(task, nbytes)
        try:
            yield since
        finally:
            self._leave(task)

    async def empty(self) -> None:
        """Return when no question is in hand, and none waits to be."""
        await self._empty.wait()

    def check(self, task: str, nbytes: int) -> None:
        """Refuse a question of so many bytes that would have to wait where as much waits as may wait.

        Raises:
            OverloadedError: If it would.
        """
        waiting = len(self._waiting.get(task, ()))
        if waiting and (waiting >= self._limits.task_rows or self._held + nbytes > self._limits.nbytes):
            raise OverloadedError(
                f"{waiting} questions are waiting for this task already: try again in a moment",
                retry_seconds=1,
            )

    async def _enter(self, task: str, nbytes: int) -> float | None:
        now = self._clock()
        if task != self._last:
            self._last, self._before_at = task, self._last_at
        self._last_at = now
        waiting = self._waiting.get(task)
        if not waiting and self._has_room(task, now):
            self._take(task)
            return None
        if waiting is None:
            waiting = self._waiting[task] = deque()
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        self._held += nbytes
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with contextlib.suppress(ValueError):
                    waiting.remove(turn)
            else:  # it was its turn just now: somebody else's, then
                self._leave(task)
            raise
        finally:
            self._held -= nbytes
        return now

    def _leave(self, task: str) -> None:
        """Count a question out, and let those go on that waited for it."""
        self._all -= 1
        self._in_hand[task] -= 1
        waiting = self._waiting.get(task)
        if waiting is not None:
            now = self._clock()
            while waiting and self._has_room(task, now):
                turn = waiting.popleft()
                if not turn.done():  # whose client went away just now
                    self._take(task)
                    turn.set_result(None)
            if not waiting:
                del self._waiting[task]
        if not self._in_hand[task]:
            del self._in_hand[task]
            if not self._all:
                self._empty.set()

    def _take(self, task: str) -> None:
        self._all += 1
        self._in_hand[task] += 1
        self._empty.clear()

    def _has_room(self, task: str, now: float) -> bool:
        own = self._in_hand[task]
        if own < fair_share(self._all - own, _FEW):
            return True
        return now - (self._before_at if task == self._last else self._last_at) > _RECENT
