"""Start and stop a server: in the foreground for a person, in the background for a program."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from coterie.runtime.errors import ConfigError, MissingExtraError
from coterie.runtime.serving._open import check_device, check_served
from coterie.runtime.serving._ports import free_ports, is_loopback, numeric, obstacle
from coterie.runtime.serving._process import (
    Addresses,
    forwarded_signals,
    start_server,
    stop_server,
    wait_until_ready,
)
from coterie.runtime.serving._settings import PREFIX, Settings, as_text
from coterie.runtime.serving.access._keys import read_keys
from coterie.runtime.serving.observing._telemetry import exporter_from

_LOG = logging.getLogger("coterie.serving")

_EXTRA = ("bentoml", "grpc", "grpc_health", "grpc_reflection", "starlette")


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
        ConfigError: If nobody can listen on a port, both are one, or a setting, a key or a certificate is
            wrong.
    """
    host = numeric(host)
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
        f"{name}: {found}"
        for name, port in (("http_port", http_port), ("grpc_port", grpc_port))
        if port and (found := obstacle(host, port))
    ]
    if grpc_port and grpc_port == http_port:
        problems.append(f"grpc_port: {grpc_port} is HTTP's already, choose another")
    if problems:
        raise ConfigError("the server cannot listen", problems)
    if not is_loopback(host) and (wanted.keys is None or wanted.tls is None):
        missing = " and ".join(
            text for text, given in (("keys", wanted.keys), ("TLS", wanted.tls)) if given is None
        )
        _LOG.warning(
            "listening on %s without %s: whoever reaches this machine may ask or listen", host, missing
        )
    with tempfile.TemporaryDirectory(prefix="coterie-") as home:
        process = start_server(wanted, host, http_port, home)
        with forwarded_signals(process):
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
    http_port, grpc_port = free_ports(host, 2)
    port = grpc_port if grpc else 0
    wanted = _settings(
        bundle, {}, grpc_host=host, grpc_port=port, workers=workers, threads=threads, **settings
    )
    with tempfile.TemporaryDirectory(prefix="coterie-") as home:
        log = Path(home) / "server.log"
        with log.open("wb") as output:
            process = start_server(wanted, host, http_port, home, output)
        addresses = Addresses(f"{host}:{http_port}", f"{host}:{grpc_port}" if grpc else None, process.pid)
        try:
            wait_until_ready(process, addresses, startup_seconds, log, tls=wanted.tls is not None)
            yield addresses
        finally:
            stop_server(process, wanted.shutdown_seconds + 10)


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
    check_device(settings)
    path = check_served(bundle, settings.public_key, weighted=settings.task_weights)
    return settings.model_copy(update={"bundle": path})
