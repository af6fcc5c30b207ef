"""A fair queue: deficit round robin over tasks (Shreedhar and Varghese 1995), within priorities.

Each task with something waiting is a flow. Flows take turns; a turn is worth a number of rows, and what a
turn leaves over counts in the next. So a task that floods the server waits for itself, and not the others for
it. Nor do they wait for its rows in a batch of theirs, of which no flow has more than its share.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from coterie.runtime.batching._ticket import Shape, Ticket

_TURN = 16
"""Rows that a turn of a task of weight 1 is worth."""
_TIMES_OTHERS = 2
"""How many times the rows of all others a flow may have: a popular task is no flood."""


def fair_share(others: float, turn: float = _TURN, *, times: float = _TIMES_OTHERS) -> float:
    """Return how much a flow may have beside all others that want an answer; a ``turn`` in any case."""
    return max(turn, times * others)


class _Flow:
    """One task's tickets, in the order in which they came, and the rows that it may still ask for."""

    def __init__(self, turn: float) -> None:
        self.tickets: deque[Ticket] = deque()
        self.turn = turn
        self.credit = 0.0
        self.rows = 0
        """Of all tickets."""
        self.room = math.inf
        """Rows that it may have in the batch that is being made."""

    def push(self, ticket: Ticket) -> None:
        self.tickets.append(ticket)
        self.rows += ticket.rows

    def pop(self) -> Ticket:
        ticket = self.tickets.popleft()
        self.rows -= ticket.rows
        return ticket

    def skip_cancelled(self) -> None:
        while self.tickets and self.tickets[0].answer.done():
            self.pop()


class FairQueue:
    """Tickets that wait.

    Args:
        weights: How much more often than a task of weight 1 a flow has its turn; 1 where it is not given.
    """

    def __init__(self, weights: Mapping[int, float] | None = None) -> None:
        self._weights = dict(weights or {})
        self._classes: dict[int, dict[int, _Flow]] = {}

    def __bool__(self) -> bool:
        """Return whether anybody waits who still wants an answer."""
        self._forget()
        return bool(self._classes)

    def push(self, ticket: Ticket) -> None:
        """Put a ticket behind the others of its flow."""
        flows = self._classes.setdefault(ticket.priority, {})
        if ticket.flow not in flows:
            flows[ticket.flow] = _Flow(_TURN * self._weights.get(ticket.flow, 1.0))
        flows[ticket.flow].push(ticket)

    @property
    def is_flooded(self) -> bool:
        """Whether others wait beside a flow that has more than its share."""
        return any(flow.rows > room for flow, room in self._rooms())

    def holds_others(self, flow: int) -> bool:
        """Return whether anybody waits but a flow."""
        return any(key != flow for flows in self._classes.values() for key in flows)

    def take(self, most: int) -> list[Ticket]:
        """Take tickets of one shape whose turn it is: ``most`` rows together, or one that has more alone."""
        self._forget()
        for flow, share in self._rooms():
            flow.room = share
        taken: list[Ticket] = []
        room, shape = most, None
        for priority in sorted(self._classes):
            room, shape = self._take_from(self._classes[priority], room, shape, taken)
        self._forget()
        return taken

    def _take_from(
        self, flows: dict[int, _Flow], room: int, shape: Shape | None, taken: list[Ticket]
    ) -> tuple[int, Shape | None]:
        """Take from one class; return the rows that are still free, and the shape that was settled on."""
        while room > 0:
            able = [key for key, flow in flows.items() if _fits(flow, room, shape, first=not taken)]
            if not able:
                break
            # Turns in which nobody could take anything are over at once.
            turns = min(_turns(flows[key]) for key in able)
            for key, flow in list(flows.items()):
                if not flow.tickets:
                    continue
                # A flow that this batch has no place for is sooner in the next.
                flow.credit = min(flow.credit + turns * flow.turn, flow.tickets[0].rows + flow.turn)
                before = len(taken)
                while _fits(flow, room, shape, first=not taken) and flow.tickets[0].rows <= flow.credit:
                    ticket = flow.pop()
                    flow.credit -= ticket.rows
                    flow.room -= ticket.rows
                    room, shape = room - ticket.rows, ticket.shape
                    taken.append(ticket)
                    flow.skip_cancelled()
                if len(taken) > before:
                    # Whoever had a turn comes after all who wait for theirs.
                    flows[key] = flows.pop(key)
                if not flow.tickets:
                    flow.credit = 0.0
        return room, shape

    def _rooms(self) -> list[tuple[_Flow, float]]:
        """Return all flows, each with its share."""
        flows = [flow for each in self._classes.values() for flow in each.values()]
        if len(flows) == 1:
            return [(flows[0], math.inf)]
        rows = sum(flow.rows for flow in flows)
        return [(flow, fair_share(rows - flow.rows, flow.turn)) for flow in flows]

    def _forget(self) -> None:
        """Drop the tickets that nobody waits for, and flows without any."""
        for priority in list(self._classes):
            flows = self._classes[priority]
            for key in list(flows):
                flows[key].skip_cancelled()
                if not flows[key].tickets:
                    del flows[key]
            if not flows:
                del self._classes[priority]


def _turns(flow: _Flow) -> int:
    """Return how many turns it takes until a flow's first ticket can be paid."""
    return max(1, math.ceil((flow.tickets[0].rows - flow.credit) / flow.turn))


def _fits(flow: _Flow, room: int, shape: Shape | None, *, first: bool) -> bool:
    if not flow.tickets:
        return False
    ticket = flow.tickets[0]
    return first or (ticket.shape == shape and ticket.rows <= min(room, flow.room))
