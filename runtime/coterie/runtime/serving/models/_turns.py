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
from collections.abc import AsyncIterator, Callable, Mapping
from typing import NamedTuple

from coterie.runtime.batching import Limits
from coterie.runtime.batching._batcher import too_late
from coterie.runtime.batching._queue import fair_share
from coterie.runtime.errors import DeadlineError, OverloadedError
from coterie.runtime.serving.models._questions import PRIORITY

_FEW = 4
"""Questions that a task may always have in hand: what whoever comes next waits for."""
_RECENT = 1.0
"""Seconds after which a task that nobody asked any more is nobody to be fair to."""


class Urgency(NamedTuple):
    """What is known of a question before it is read.

    Attributes:
        priority: 1 goes before 2, 2 before 3, among the questions to one task.
        seconds: After which nobody wants its answer; None where that is not said.
    """

    priority: int = PRIORITY
    seconds: float | None = None


_ORDINARY = Urgency()


class _Line:
    """A task's questions that wait for their turn, by their priorities."""

    def __init__(self) -> None:
        self._turns: dict[int, deque[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._turns.values()))

    def push(self, priority: int) -> asyncio.Future[None]:
        turn = asyncio.get_running_loop().create_future()
        self._turns.setdefault(priority, deque()).append(turn)
        return turn

    def pop(self) -> asyncio.Future[None]:
        priority = min(self._turns)
        turn = self._turns[priority].popleft()
        if not self._turns[priority]:
            del self._turns[priority]
        return turn

    def remove(self, turn: asyncio.Future[None], priority: int) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._turns[priority].remove(turn)
            if not self._turns[priority]:
                del self._turns[priority]


class Turns:
    """Counts the questions in hand, and lets those of a task that has its share of them wait.

    All of it belongs to one event loop.

    Args:
        limits: Of one task as many questions may wait as rows, and of all as many bytes; more are refused.
        weights: How many times as much as a task of weight 1 a task may have in hand.
        clock: Gives the seconds.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        weights: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._limits, self._clock = limits or Limits(), clock
        self._weights = dict(weights or {})
        self._in_hand = Counter[str]()
        self._all = 0
        self._shares = 0.0
        """Of all tasks, what each has in hand by its weight."""
        self._waiting: dict[str, _Line] = {}
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
    async def of(
        self, task: str, nbytes: int, urgency: Callable[[], Urgency] = lambda: _ORDINARY
    ) -> AsyncIterator[float | None]:
        """Have the turn of a question, from when it may be read until its answer is written.

        Gives since when it waited, or nothing where it did not.

        Args:
            task: Which is asked.
            nbytes: Of the question.
            urgency: Gives how urgent it is; called where it has to wait.

        Raises:
            DeadlineError: If nobody wants its answer any more before its turn has come.
        """
        since = await self._enter(task, nbytes, urgency)
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

    async def _enter(self, task: str, nbytes: int, urgency: Callable[[], Urgency]) -> float | None:
        now = self._clock()
        if task != self._last:
            self._last, self._before_at = task, self._last_at
        self._last_at = now
        waiting = self._waiting.get(task)
        if not waiting and self._has_room(task, now):
            self._take(task)
            return None
        if waiting is None:
            waiting = self._waiting[task] = _Line()
        priority, seconds = urgency()
        turn = waiting.push(priority)
        late = None
        if seconds is not None:
            late = asyncio.get_running_loop().call_later(seconds, _expire, turn, seconds)
        self._held += nbytes
        try:
            await turn
        except (asyncio.CancelledError, DeadlineError):
            if turn.cancelled() or turn.exception() is not None:
                waiting.remove(turn, priority)
            else:  # it was its turn just now: somebody else's, then
                self._leave(task)
            raise
        finally:
            self._held -= nbytes
            if late is not None:
                late.cancel()
        return now

    def _leave(self, task: str) -> None:
        """Count a question out, and let those go on that waited for it."""
        self._all -= 1
        self._in_hand[task] -= 1
        self._shares -= 1 / self._weights.get(task, 1.0)
        waiting = self._waiting.get(task)
        if waiting is not None:
            now = self._clock()
            while waiting and self._has_room(task, now):
                turn = waiting.pop()
                if not turn.done():  # whose client went away just now
                    self._take(task)
                    turn.set_result(None)
            if not waiting:
                del self._waiting[task]
        if not self._in_hand[task]:
            del self._in_hand[task]
            if not self._all:
                self._shares = 0.0  # what rounding has left of it
                self._empty.set()

    def _take(self, task: str) -> None:
        self._all += 1
        self._in_hand[task] += 1
        self._shares += 1 / self._weights.get(task, 1.0)
        self._empty.clear()

    def _has_room(self, task: str, now: float) -> bool:
        own = self._in_hand[task] / self._weights.get(task, 1.0)
        others = self._shares - own
        if own < (fair_share(others, _FEW, times=1) if self._is_lighter(task) else fair_share(others, _FEW)):
            return True
        return now - (self._before_at if task == self._last else self._last_at) > _RECENT

    def _is_lighter(self, task: str) -> bool:
        """Return whether a task of more weight has questions in hand."""
        if not self._weights:
            return False
        own = self._weights.get(task, 1.0)
        return any(self._weights.get(other, 1.0) > own for other in self._in_hand)


def _expire(turn: asyncio.Future[None], seconds: float) -> None:
    if not turn.done():
        turn.set_exception(too_late(seconds))
