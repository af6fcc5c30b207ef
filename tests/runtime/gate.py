"""An engine whose runs wait, so that a test decides what happens meanwhile."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from coterie.runtime import Engine
from coterie.runtime.engine._asked import Asked
from coterie.runtime.errors import UnavailableError


class Gate:
    """Holds an engine's runs until it is opened."""

    def __init__(self, engine: Engine) -> None:
        self._open = threading.Event()
        self.entered = threading.Event()
        self._run = engine.run
        engine.run = self.run  # type: ignore[method-assign]

    def run(self, asked: Asked, stop: Any = None) -> Any:
        self.entered.set()
        while not self._open.wait(0.01):
            if stop is not None and stop.terminate:
                raise UnavailableError("stopped")
        return self._run(asked, stop)

    def open(self) -> None:
        """Let runs go on."""
        self._open.set()

    def close(self) -> None:
        """Hold them again."""
        self._open.clear()

    async def busy(self) -> None:
        """Return when a run has begun."""
        while not self.entered.is_set():
            await asyncio.sleep(0.001)
