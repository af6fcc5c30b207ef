"""Which core a server has, and what it takes of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress

import psutil

from coterie.runtime.serving import Addresses


def pinned(stack: ExitStack, cores: tuple[int, int], server: AbstractContextManager[Addresses]) -> Addresses:
    """Start a server on the first core, and go on on the second, the client's."""
    os.sched_setaffinity(0, {cores[0]})
    try:
        return stack.enter_context(server)
    finally:
        os.sched_setaffinity(0, {cores[1]})


def yield_to_others() -> None:
    """Let this process have only what the others leave of its core."""
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)


def cpu_seconds(pid: int) -> float:
    """Return the seconds that a process, and all that it started, have computed."""
    times = [each.cpu_times() for each in _family(pid)]
    return float(sum(each.user + each.system for each in times))


def pss(pid: int) -> int:
    """Return the proportional set size in bytes of a process, and of all that it started."""
    total = 0
    for each in _family(pid):
        with suppress(psutil.NoSuchProcess):  # a child may end meanwhile
            total += each.memory_full_info().pss
    return total


@contextmanager
def halted(pid: int) -> Iterator[None]:
    """Stop a process, and all that it started, while the ``with`` block lasts: some take a core to wait."""
    family = _family(pid)
    for each in family:
        with suppress(psutil.NoSuchProcess):
            each.suspend()
    try:
        yield
    finally:
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.resume()


def _family(pid: int) -> list[psutil.Process]:
    server = psutil.Process(pid)
    return [server, *server.children(recursive=True)]
