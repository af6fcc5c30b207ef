"""A request that waits for its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from coterie.runtime.engine import Prediction
from coterie.runtime.engine._asked import Asked

MANY = -1
"""The flow of requests that ask several tasks."""

Shape = tuple[tuple[int, ...], ...]


@dataclass(eq=False)
class Ticket:
    """One request in the queue.

    Attributes:
        asked: Its questions.
        answer: Where its answer goes; cancelled when nobody waits for it any more.
        flow: Whose turn it is: the index of its task, or ``MANY``.
        shape: What only requests of the same can be batched with.
        priority: 0 goes first, whatever else waits.
        arrived: When it came, on the clock of ``time.perf_counter``: a loop's own may count in milliseconds.
        leave: Called when nobody waits for it any more, answered or not.
    """

    asked: Asked
    answer: asyncio.Future[Prediction]
    shape: Shape
    priority: int
    arrived: float
    leave: Callable[[], None] = lambda: None
    flow: int = field(init=False)
    rows: int = field(init=False)
    """Questions and inputs, whichever are more: what its run costs, and at least 1."""
    nbytes: int = field(init=False)
    """What its questions hold while they wait."""

    def __post_init__(self) -> None:
        questions = len(self.asked)
        same = self.asked.spec is not None and questions > 0
        self.flow = int(self.asked.task[0]) if same else MANY
        self.rows = max(1, questions, self.asked.distinct)
        self.nbytes = self.asked.nbytes
