"""A server's processes end with the process that started them, whatever has become of that."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time

PARENT = "COTERIE_PARENT"
"""Environment variable: the process that a child of it is to end with."""

_SECONDS = 1.0
_LOG = logging.getLogger("coterie.serving")


def end_with_parent() -> None:
    """End with this process's parent if that said so, and say so to the children of this one.

    A parent that is killed tells nobody: its server would go on with nobody to stop it, and its workers with
    nobody to replace them. They are sent SIGTERM within about a second. Whoever starts a server by other
    means, as ``bentoml serve`` in a shell, may go while it stays.
    """
    parent = os.getppid()
    if os.environ.get(PARENT) == str(parent):
        threading.Thread(target=_watch, args=(parent,), name="coterie-lifeline", daemon=True).start()
    os.environ[PARENT] = str(os.getpid())


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    _LOG.warning("the process that started this one has gone: stopping")
    os.kill(os.getpid(), signal.SIGTERM)
