"""Start and stop a server: in the foreground for a person, in the background for a program."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from coterie.runtime.errors import ConfigError, CoterieError, MissingExtraError
from coterie.runtime.serving._open import check_served
from coterie.runtime.serving._settings import PREFIX, Settings, as_text
from coterie.runtime.serving.access._keys import read_keys
from coterie.runtime.serving.access._tls import Tls
from coterie.runtime.serving.observing._telemetry import exporter_from

_LOG = logging.getLogger("coterie.serving")

SERVICE = "coterie.runtime.service:CoterieService"
_LOG_TAIL = 20
_EXTRA = ("bentoml", "grpc", "grpc_health", "grpc_reflection", "starlette")


@dataclass(frozen=True)
class Addresses:
    """Where a running server listens, each as ``host:port``."""

    http: str
    grpc: str | None
    """``None`` when gRPC is off."""
    pid: int
    """Process that stops the whole server when it gets SIGTERM."""


def serve(
    bundle: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    http_port: int = 3000,
    grpc_port: int = 3001,
    workers: int = 1,
    threads: int | None = None,
    public_key: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> int:
    """Serve a bundle until the process gets SIGTERM or SIGINT; return the server's exit code.

    Args:
        bundle: Folder of the bundle, or of a store of bundles.
        host: IP address to listen on; only this machine can reach the default.
        http_port: Port of HTTP.
        grpc_port: Port of gRPC; 0 is none.
        workers: Server processes.
        threads: Threads that one run of the engine may use, in each worker; by default one a core.
        public_key: Ed25519 public key in PEM, a file: a bundle not signed with its private half is refused.
        settings: More of ``Settings``.

    What has no argument here is taken from the environment: ``COTERIE_MAX_BODY`` and the like.

    Raises:
        MissingExtraError: If ``coterie[serve]`` is not installed.
        BundleError: If the bundle cannot be loaded.
        SignatureError: If it is not signed with the key.
        ConfigError: If a port is in use, or a setting, a key or a certificate is wrong.
    """
    inherited = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    wanted = _settings(
        bundle,
        inherited,
        grpc_host=host,
        grpc_port=grpc_port,
        workers=workers,
        threads=threads,
        public_key=public_key,
        **settings,
    )
    problems = [
        f"{name}: {port} is in use on {host}, choose another"
        for name, port in (("http_port", http_port), ("grpc_port", grpc_port))
        if port and not _is_free(host, port)
    ]
    if problems:
        raise ConfigError("the server cannot listen", problems)
    if not _is_loopback(host) and (wanted.keys is None or wanted.tls is None):
        missing = " and ".join(
            text for text, given in (("keys", wanted.keys), ("TLS", wanted.tls)) if given is None
        )
        _LOG.warning(
            "listening on %s without %s: whoever reaches this machine may ask or listen", host, missing
        )
    with tempfile.TemporaryDirectory(prefix="coterie-") as home:
        process = _start(wanted, host, http_port, home)
        with _forwarded_signals(process):
            return process.wait()


@contextlib.contextmanager
def running_server(
    bundle: str | os.PathLike[str],
    *,
    workers: int = 1,
    threads: int | None = None,
    grpc: bool = True,
    startup_seconds: float = 60.0,
    **settings: Any,
) -> Iterator[Addresses]:
    """Run a server on free ports of this machine while the ``with`` block lasts.

    Args:
        bundle: Folder of the bundle, or of a store of bundles.
        workers: Server processes.
        threads: Threads that one run of the engine may use, in each worker; by default one a core.
        grpc: Whether to serve gRPC too.
        startup_seconds: How long it may take until both transports answer.
        settings: More of ``Settings``.

    Raises:
        MissingExtraError: If ``coterie[serve]`` is not installed.
        BundleError: If the bundle cannot be loaded.
        ConfigError: If a setting is wrong.
        CoterieError: If the server ends or is not ready in time; the message ends with its log.
    """
    host = "127.0.0.1"
    http_port, grpc_port = _free_ports(host, 2)
    port = grpc_port if grpc else 0
    wanted = _settings(
        bundle, {}, grpc_host=host, grpc_port=port, workers=workers, threads=threads, **settings
    )
    with tempfile.TemporaryDirectory(prefix="coterie-") as home:
        log = Path(home) / "server.log"
        with log.open("wb") as output:
            process = _start(wanted, host, http_port, home, output)
        addresses = Addresses(f"{host}:{http_port}", f"{host}:{grpc_port}" if grpc else None, process.pid)
        try:
            _wait_until_ready(process, addresses, startup_seconds, log, tls=wanted.tls is not None)
            yield addresses
        finally:
            _stop(process, wanted.shutdown_seconds + 10)


def _settings(bundle: str | os.PathLike[str], inherited: Mapping[str, str], **values: Any) -> Settings:
    """Verify the bundle and the settings here, where an error is a message and not a worker's log."""
    if any(find_spec(module) is None for module in _EXTRA):
        raise MissingExtraError("serve", "serving")
    unknown = [name for name in values if name not in Settings.model_fields]
    if unknown:
        raise ConfigError("the server has no such settings", unknown)
    environment = dict(inherited) | {
        f"{PREFIX}{name.upper()}": as_text(value) for name, value in values.items() if value is not None
    }
    settings = Settings.from_environment(environment)
    # The server runs in a folder of its own, where relative paths would lead elsewhere.
    files = {name: value.resolve() for name, value in settings if isinstance(value, Path)}
    settings = settings.model_copy(update=files)
    if settings.keys is not None:
        read_keys(settings.keys)
    if settings.tls is not None:
        settings.tls.check()
    exporter_from(os.environ)
    path = check_served(bundle, settings.public_key, weighted=settings.task_weights)
    return settings.model_copy(update={"bundle": path})


def _start(
    settings: Settings, host: str, http_port: int, home: str, output: Any = None
) -> subprocess.Popen[bytes]:
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
def _forwarded_signals(process: subprocess.Popen[bytes]) -> Iterator[None]:
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


def _wait_until_ready(
    process: subprocess.Popen[bytes], addresses: Addresses, seconds: float, log: Path, *, tls: bool
) -> None:
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


def _stop(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Ask the server to end; after so many seconds, end whatever of it is left."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL:])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _free_ports(host: str, count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((host, 0))
        return [probe.getsockname()[1] for probe in probes]
