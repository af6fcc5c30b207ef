"""How much may wait: rows and bytes, of one task and of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coterie.runtime.batching._ticket import Ticket
from coterie.runtime.errors import OverloadedError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much may wait or run.

    Attributes:
        rows: Rows of all requests.
        task_rows: Rows of the requests to one task, so that no task takes all the room.
        nbytes: Bytes of all requests' inputs.
    """

    rows: int = 16384
    task_rows: int = 8192
    nbytes: int = 256 * 1024 * 1024


class Admission:
    """Counts what waits or runs, and refuses at once what would be too much.

    An empty server takes any request, however large: a limit on one request is the front ends' business.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._task_rows: Counter[int] = Counter()
        self.tickets = 0
        self.rows = 0
        self.nbytes = 0

    def admit(self, tickets: Sequence[Ticket], retry_seconds: Callable[[], float]) -> None:
        """Count a request in.

        Args:
            tickets: Its parts, of one flow.
            retry_seconds: Gives after how long whoever is refused should try again.

        Raises:
            OverloadedError: If there is no room.
        """
        rows, nbytes = sum(each.rows for each in tickets), sum(each.nbytes for each in tickets)
        self.check(tickets[0].flow, retry_seconds, rows=rows, nbytes=nbytes)
        for ticket in tickets:
            self._count(ticket, 1)

    def check(self, flow: int, retry_seconds: Callable[[], float], *, rows: int = 1, nbytes: int = 1) -> None:
        """Check that there is room for so much of a flow, or for anything at all.

        Raises:
            OverloadedError: If there is not.
        """
        full, own = None, self._task_rows.get(flow, 0)
        if self.tickets and self.rows + rows > self._limits.rows:
            full = f"{self.rows} rows are waiting already"
        elif own and own + rows > self._limits.task_rows:
            full = f"{own} rows are waiting for this task already"
        elif self.tickets and self.nbytes + nbytes > self._limits.nbytes:
            full = f"{self.nbytes} bytes are waiting already"
        if full is not None:
            raise OverloadedError(f"{full}: try again in a moment", retry_seconds=retry_seconds())

    def release(self, ticket: Ticket) -> None:
        """Count a ticket out."""
        self._count(ticket, -1)
        if not self._task_rows[ticket.flow]:
            del self._task_rows[ticket.flow]

    def _count(self, ticket: Ticket, sign: int) -> None:
        self.tickets += sign
        self.rows += sign * ticket.rows
        self.nbytes += sign * ticket.nbytes
        self._task_rows[ticket.flow] += sign * ticket.rows
