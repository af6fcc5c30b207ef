"""Starts the server of a peer, waits until it answers, and ends it with all that it started."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

START_SECONDS = 180.0
SPARED_BYTES = 1 << 30
"""Memory of the machine that no peer may take: a server is ended before the machine ends others."""


class NotStartedError(Exception):
    """A peer's server did not start; the message ends with its log."""


@contextmanager
def started(
    command: Sequence[str], folder: Path, ready: str, environment: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Run a server while the ``with`` block lasts, and give its process id once it is ready.

    Args:
        command: The program and its arguments.
        folder: Where it runs, and where its log goes.
        ready: The address that answers 200 when it is ready.
        environment: Variables, beside those of this process.

    Raises:
        NotStartedError: If it ends or is not ready in time.
    """
    log = folder / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdout=output,
            stderr=output,
        )
    try:
        _await_ready(ready, server, log)
        yield server.pid
    finally:
        _end(server)


def _await_ready(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + START_SECONDS
    while time.monotonic() < limit and server.poll() is None:
        if psutil.virtual_memory().available < SPARED_BYTES:
            raise NotStartedError("the machine's memory ran out before it was ready")
        try:
            if httpx.get(address).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    if server.poll() is None:
        raise NotStartedError(f"it was not ready within {START_SECONDS:.0f} seconds")
    raise NotStartedError(log.read_text(encoding="utf-8", errors="replace")[-2000:])


def _end(server: subprocess.Popen[bytes]) -> None:
    # Found before the parent is gone, since nobody knows afterwards whose they were.
    family = psutil.Process(server.pid).children(recursive=True) if server.poll() is None else []
    server.terminate()
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    _, left = psutil.wait_procs(family, timeout=5)
    for each in left:
        with suppress(psutil.NoSuchProcess):
            each.kill()
