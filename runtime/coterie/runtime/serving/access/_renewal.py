"""Certificates that are renewed while a server runs: their files are read again when they are others."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from coterie.runtime.errors import ConfigError
from coterie.runtime.serving.access._tls import Tls

_LOG = logging.getLogger("coterie.serving")

Shown = tuple[Tls, Callable[[Tls], None]]
"""Certificates, and what has a transport show them, read again, to whoever connects from then on."""


class Renewal:
    """Looks now and then whether the files of certificates are others.

    Files that do not belong together, as while one of them is written, are left until they do.

    Args:
        shown: Which files, and whom to tell.
        seconds: How often it looks.
    """

    def __init__(self, shown: Sequence[Shown], *, seconds: float) -> None:
        self._shown = list(shown)
        self._seconds = seconds
        self._stamps = [tls.stamp() for tls, _ in self._shown]
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look until ``stop``."""
        if self._shown:
            self._task = asyncio.get_running_loop().create_task(self._look())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            for number, (tls, show) in enumerate(self._shown):
                stamp = tls.stamp()
                if stamp == self._stamps[number]:
                    continue
                self._stamps[number] = stamp
                try:
                    tls.check()
                    show(tls)
                except (ConfigError, OSError) as error:
                    _LOG.warning("new certificates are not shown, those before still are: %s", error)
                else:
                    _LOG.info("new certificates are shown from now on")


def over_http() -> list[Shown]:
    """Return what this process shows over HTTP, if it speaks TLS there; ask while it serves.

    An authority of clients is added to those before: one that is withdrawn is still taken until a restart.
    """
    # BentoML hands its certificates to uvicorn alone, which is found where the signals to end it go.
    ends: Any = signal.getsignal(signal.SIGTERM)
    config: Any = getattr(getattr(ends, "__self__", None), "config", None)
    context = getattr(config, "ssl", None)
    if not isinstance(context, ssl.SSLContext) or not config.ssl_certfile or config.ssl_keyfile_password:
        return []
    authority = config.ssl_ca_certs
    tls = Tls(
        Path(config.ssl_certfile),
        Path(config.ssl_keyfile or config.ssl_certfile),
        Path(authority) if authority else None,
    )

    def show(tls: Tls) -> None:
        context.load_cert_chain(tls.cert, tls.key)
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)

    return [(tls, show)]
