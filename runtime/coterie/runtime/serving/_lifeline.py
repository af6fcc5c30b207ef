"""A server's processes end with the process that started them, whatever has become of that."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from pathlib import Path

PARENT = "COTERIE_PARENT"
"""Environment variable: the process that a child of it is to end with."""

_SECONDS = 1.0
_LOG = logging.getLogger("coterie.serving")


def end_with_parent() -> None:
    """End with this process's parent if that said so, and say so to the children of this one.

    A parent that is killed tells nobody: its server would go on with nobody to stop it, and its workers with
    nobody to replace them. They are sent SIGTERM within about a second, or now where it has gone already.
    Whoever starts a server by other means, as ``bentoml serve`` in a shell, may go while it stays.
    """
    parent, said = os.getppid(), os.environ.get(PARENT, "")
    if said == str(parent):
        threading.Thread(target=_watch, args=(parent,), name="coterie-lifeline", daemon=True).start()
    elif said.isdecimal() and not _is_there(int(said)):
        _stop()
    os.environ[PARENT] = str(os.getpid())


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    _stop()


def _stop() -> None:
    _LOG.warning("the process that started this one has gone: stopping")
    os.kill(os.getpid(), signal.SIGTERM)


def _is_there(process: int) -> bool:
    """Return whether a process still runs; one that has ended and that nobody has asked for does not."""
    with contextlib.suppress(OSError):
        return b") Z " not in Path(f"/proc/{process}/stat").read_bytes()
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
