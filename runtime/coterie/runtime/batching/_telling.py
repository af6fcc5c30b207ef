"""Who is told an answer when: those first whose task was asked least, and of a flood a few at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence

from coterie.runtime.batching._queue import fair_share
from coterie.runtime.batching._ticket import Ticket
from coterie.runtime.engine import Prediction
from coterie.runtime.errors import CoterieError

_AT_ONCE = 4
"""Requests of a flood that are told in one turn of the loop: to write all answers takes it longer than a
run, and whoever comes meanwhile is not even read. Where there is no flood, more turns only cost more."""

Answers = list[Prediction | CoterieError]
Answered = Sequence[tuple[Ticket, Prediction | CoterieError]]


class Telling:
    """Gives requests their answers; all of it belongs to one event loop.

    Attributes:
        flood: The flow that has most of the answers that are still to be told, if it has more than its share.
    """

    def __init__(self) -> None:
        self.flood: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, tickets: Sequence[Ticket], answers: Answers) -> None:
        """Tell the requests of a run: all at once, or a flood's a few in each turn, after the others."""
        rows = Counter[int]()
        for ticket in tickets:
            rows[ticket.flow] += ticket.rows
        answered = sorted(zip(tickets, answers, strict=True), key=lambda each: rows[each[0].flow])
        ((flow, most),) = rows.most_common(1)
        if len(answered) <= _AT_ONCE or most <= fair_share(rows.total() - most):
            _tell(answered)
        else:
            self.flood = flow
            _tell(answered[:_AT_ONCE])
            task = asyncio.get_running_loop().create_task(_tell_in_turns(answered[_AT_ONCE:]))
            self._tasks.add(task)  # or nothing would keep it
            task.add_done_callback(self._told)

    def _told(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self.flood = None


async def _tell_in_turns(answered: Answered) -> None:
    for first in range(0, len(answered), _AT_ONCE):
        await asyncio.sleep(0)
        _tell(answered[first : first + _AT_ONCE])


def _tell(answered: Iterable[tuple[Ticket, Prediction | CoterieError]]) -> None:
    for ticket, answer in answered:
        if ticket.answer.done():
            continue
        if isinstance(answer, Prediction):
            ticket.answer.set_result(answer)
        else:
            ticket.answer.set_exception(answer)
