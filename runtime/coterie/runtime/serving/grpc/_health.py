"""gRPC's own health checks, whose watchers do not keep a server from stopping."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc_health.v1 import health

_LAST_WORDS_SECONDS = 0.1
"""After which a watcher has been told that the server stops."""


class HealthServicer(health.aio.HealthServicer):  # type: ignore[misc]
    """Tells whether the server answers.

    Args:
        stopping: Once it is set, whoever watches is told so, and their calls end.
    """

    def __init__(self, stopping: asyncio.Event) -> None:
        super().__init__()
        self._stopping = stopping

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802 - the protocol's name
        """Tell now, and whenever that changes."""
        watching = asyncio.ensure_future(super().Watch(request, context))
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({watching, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not watching.done():
                await asyncio.sleep(_LAST_WORDS_SECONDS)
        finally:
            stopped.cancel()
            watching.cancel()
            await asyncio.gather(watching, stopped, return_exceptions=True)
