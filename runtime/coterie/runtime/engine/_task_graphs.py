"""Which tasks have a session of their own, within a number of bytes."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache

from coterie.runtime._process import UNASKED, step_back
from coterie.runtime.engine._graph import Graph

_LOG = logging.getLogger("coterie.runtime")
_FEWEST = 8
"""A task gets a session once it was asked so often: of many asked alike, chance makes none stand out."""
_TIMES = 2
"""It gets another's place when it is asked that many times as often, and ``_FEWEST`` times more."""
_REMEMBERED = 4096
"""After so many questions, what was asked before counts half."""


class TaskGraphs:
    """The sessions of single tasks.

    Args:
        make: Makes the session of a task; may take long.
        size: Returns the bytes that it takes.
        limit: Bytes that all together may take.
    """

    def __init__(self, make: Callable[[int], Graph], size: Callable[[int], int], *, limit: int) -> None:
        self._make = make
        self._size = cache(size)
        self._limit = limit
        self._kept: dict[int, Graph] = {}
        self._asked: Counter[int] = Counter()
        self._questions = 0
        self._refused: set[int] = set()
        self._maker: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def kept(self) -> tuple[int, ...]:
        """The tasks that have a session, the one asked last at the end."""
        with self._lock:
            return tuple(self._kept)

    def get(self, task: int) -> Graph:
        """Return a task's session, made now if there is none; those asked longest ago make room.

        One that alone is larger than the limit is made all the same: the task has no other.

        Raises:
            BundleError: If it cannot be made.
        """
        with self._lock:
            graph = self._kept.pop(task, None)
            if graph is None:
                graph = self._make(task)
                leaving = self._in_the_way(self._kept, task)
                self._forget(tuple(self._kept) if leaving is None else leaving)
            self._kept[task] = graph
            return graph

    def get_if_kept(self, task: int) -> Graph | None:
        """Return a task's session if it has one; if not, see to it that tasks asked often get one.

        It is made in a thread, and meanwhile somebody else answers. A task takes the place of others only if
        it is asked more often than they are together, so that many tasks asked alike do not take turns.
        """
        with self._lock:
            self._count(task)
            graph = self._kept.get(task)
            if graph is None and self._deserves(task):
                self._maker = threading.Thread(target=self._make_behind, args=(task,), name="coterie-session")
                self._maker.start()
            return graph

    def fitting(self, tasks: Iterable[int]) -> list[int]:
        """Return the first of these tasks, as many as fit within the limit."""
        fits, taken = [], 0
        for task in tasks:
            taken += self._size(task)
            if taken > self._limit:
                break
            fits.append(task)
        return fits

    def clear(self) -> None:
        """Let go of all sessions."""
        with self._lock:
            self._kept.clear()

    def _count(self, task: int) -> None:
        self._asked[task] += 1
        self._questions += 1
        if self._questions >= _REMEMBERED:
            self._asked = Counter({task: count // 2 for task, count in self._asked.items() if count > 1})
            self._questions = self._asked.total()

    def _deserves(self, task: int) -> bool:
        if self._maker is not None or task in self._refused or self._asked[task] < _FEWEST:
            return False
        return self._worth_less(task) is not None

    def _worth_less(self, task: int) -> list[int] | None:
        """Return tasks whose sessions a task's own may replace; None where there are not enough."""
        leaving = self._in_the_way(sorted(self._kept, key=self._asked.__getitem__), task)
        if leaving is None or (
            leaving and self._asked[task] < _FEWEST + _TIMES * sum(self._asked[other] for other in leaving)
        ):
            return None
        return leaving

    def _in_the_way(self, order: Iterable[int], task: int) -> list[int] | None:
        """Return the first tasks of an order whose leaving makes room; None where all are not enough."""
        taken = sum(map(self._size, self._kept)) + self._size(task)
        leaving = []
        for other in order:
            if taken <= self._limit:
                break
            leaving.append(other)
            taken -= self._size(other)
        return leaving if taken <= self._limit else None

    def _make_behind(self, task: int) -> None:
        step_back(UNASKED)  # questions are answered meanwhile, and need the core more
        graph = None
        try:
            graph = self._make(task)
        except Exception as error:
            # Others answer for it, so nobody is to be told; the log says why.
            _LOG.warning(
                "task %d gets no session of its own (%s)", task, type(error).__name__, exc_info=error
            )
        with self._lock:
            self._maker = None
            if graph is None:
                self._refused.add(task)
                return
            leaving = self._worth_less(task)
            if leaving is not None:
                self._forget(leaving)
                self._kept[task] = graph

    def _forget(self, tasks: Iterable[int]) -> None:
        for task in tasks:
            del self._kept[task]
