"""The server's process: started with its settings, waited for, told of signals, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from coterie.runtime.errors import CoterieError
from coterie.runtime.serving._lifeline import PARENT
from coterie.runtime.serving._settings import Settings
from coterie.runtime.serving.access._tls import Tls

SERVICE = "coterie.runtime.service:CoterieService"
_LOG_TAIL = 20


@dataclass(frozen=True)
class Addresses:
    """Where a running server listens, each as ``host:port``."""

    http: str
    grpc: str | None
    """``None`` when gRPC is off."""
    pid: int
    """Process that stops the whole server when it gets SIGTERM."""


def start_server(
    settings: Settings, host: str, http_port: int, home: str, output: Any = None
) -> subprocess.Popen[bytes]:
    """Start a server and return its process at once.

    Args:
        settings: Its settings.
        host: Address that HTTP listens on.
        http_port: Port of HTTP.
        home: A folder of its own, in which it runs.
        output: File that its output goes to; by default where this process's goes.
    """
    command = [
        *(sys.executable, "-m", "bentoml", "serve", SERVICE),
        *("--host", host, "--port", str(http_port)),
        *("--timeout-graceful-shutdown", str(max(1, round(settings.shutdown_seconds)))),
        *_tls_options(settings.tls),
    ]
    environment = {
        **os.environ,
        **settings.environment(),
        # A home of its own: servers on one machine do not mix their metrics, and nothing is left behind.
        "BENTOML_HOME": home,
        "BENTOML_DO_NOT_TRACK": "True",
        PARENT: str(os.getpid()),
    }
    # A session of its own: a terminal's Ctrl-C reaches the server once, from here.
    return subprocess.Popen(  # noqa: S603 - every word of the command is ours
        command, env=environment, cwd=home, start_new_session=True, stdout=output, stderr=output
    )


def _tls_options(tls: Tls | None) -> list[str]:
    if tls is None:
        return []
    options = ["--ssl-certfile", str(tls.cert), "--ssl-keyfile", str(tls.key)]
    if tls.client_ca is not None:
        options += ["--ssl-ca-certs", str(tls.client_ca), "--ssl-cert-reqs", str(int(ssl.CERT_REQUIRED))]
    return options


@contextlib.contextmanager
def forwarded_signals(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Hand SIGTERM and SIGINT on to a server while the ``with`` block lasts; only in the main thread."""

    def forward(number: int, _: FrameType | None) -> None:
        if process.poll() is None:
            process.send_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_until_ready(
    process: subprocess.Popen[bytes], addresses: Addresses, seconds: float, log: Path, *, tls: bool
) -> None:
    """Return when both transports answer.

    Raises:
        CoterieError: If the server ends, or that takes longer than so many seconds; the message ends with
            its log.
    """
    deadline = time.monotonic() + seconds
    while not _is_ready(addresses, tls=tls):
        if process.poll() is not None:
            raise CoterieError(f"the server ended with code {process.returncode}:\n{_tail(log)}")
        if time.monotonic() > deadline:
            raise CoterieError(f"the server was not ready within {seconds:.0f} s:\n{_tail(log)}")
        time.sleep(0.05)


def _is_ready(addresses: Addresses, *, tls: bool) -> bool:
    try:
        if tls:
            _shake_hands(addresses.http)
        else:
            with urllib.request.urlopen(f"http://{addresses.http}/readyz", timeout=2):
                pass
        if addresses.grpc is not None:
            host, _, port = addresses.grpc.rpartition(":")
            socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        return False
    return True


def _shake_hands(address: str) -> None:
    """Begin TLS with a server, which answers once it is started; it may want a certificate to say more."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=2) as plain, context.wrap_socket(plain):
        pass


def stop_server(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Ask the server to end; after so many seconds, end whatever of it is left."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL:])
