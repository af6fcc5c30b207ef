"""Workers that die are replaced at once; left to itself BentoML's parent process looks every ten seconds."""

from __future__ import annotations

import logging
import signal
import threading
import time
from typing import Any

_LOG = logging.getLogger("coterie.serving")

_APART = 1.0
"""Seconds between two looks: workers that die while they start are not started again without a pause."""
_AGAIN = 0.2
"""Seconds after which it is looked again, where the parent process is at something else."""
_TRIES = 50


def mend_at_once() -> None:
    """Let this process, BentoML's parent of the workers, look after them whenever one of them dies.

    Its own looks go on. Where it is not the main thread that asks, or the system tells nobody of dead
    children, they are all there is.
    """
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, _Mender().noticed)


class _Mender:
    def __init__(self) -> None:
        self._last = -_APART
        self._looking = False

    def noticed(self, _number: int, _frame: Any) -> None:
        """Have the parent's event loop look; a signal may come in the middle of anything else."""
        # BentoML starts its workers by circus, which is found where the signals to end it go.
        ends: Any = signal.getsignal(signal.SIGTERM)
        circus: Any = getattr(getattr(ends, "__self__", None), "controller", None)
        loop = getattr(getattr(circus, "loop", None), "asyncio_loop", None)
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._soon, loop, circus.arbiter)

    def _soon(self, loop: Any, arbiter: Any) -> None:
        if not self._looking:
            self._looking = True
            wait = max(0.0, self._last + _APART - time.monotonic())
            loop.call_later(wait, self._look, loop, arbiter, _TRIES)

    def _look(self, loop: Any, arbiter: Any, tries: int) -> None:
        self._looking, self._last = False, time.monotonic()
        try:
            arbiter.manage_watchers()
        except Exception as error:
            if tries:  # it is starting, stopping or looking already
                self._looking = True
                loop.call_later(_AGAIN, self._look, loop, arbiter, tries - 1)
            else:
                _LOG.warning("dead workers wait for the next of BentoML's own looks", exc_info=error)
