"""The gRPC server of a process: the protocol, with gRPC's own health checks and reflection."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from coterie.runtime.serving.access._callers import Access
from coterie.runtime.serving.access._tls import Tls
from coterie.runtime.serving.grpc._health import HealthServicer
from coterie.runtime.serving.grpc._protocol import SERVICE, pool
from coterie.runtime.serving.grpc._servicer import Servicer
from coterie.runtime.serving.models._models import Models
from coterie.runtime.serving.observing._calls import Calls

_ROOM = 64 * 1024
"""Bytes that a message may have beside its tensors."""

_LISTENERS = 32
"""Servers at one port of one process: each takes one call in a turn of the loop, so that with one of them
calls would queue inside gRPC, where nobody can be fair to anybody and no batch can be made of them. The
system spreads connections by chance: with eight a flood of 64 sometimes crowds where others are too."""

_HANDED_OVER_SECONDS = 0.1
"""A stopping server that has been given nothing for so long has refused, in words, what clients had sent."""
_LONGEST_HANDING_OVER = 2.0
"""Seconds after which it stops all the same."""


class GrpcServer:
    """A gRPC server of one process; several processes may share its port.

    Args:
        models: The models; the server answers as soon as it is started.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        max_body: Largest request, in bytes; a larger one is refused with RESOURCE_EXHAUSTED.
        access: Who may ask; anybody, where it is not given.
        tls: The certificates; without them it speaks plainly.
        calls: Follows the calls; without it they have ids, and nobody is told of them.
    """

    def __init__(
        self,
        models: Models,
        *,
        host: str,
        port: int,
        max_body: int,
        access: Access | None = None,
        tls: Tls | None = None,
        calls: Calls | None = None,
    ) -> None:
        self._stopping = asyncio.Event()
        self._servicer = Servicer(models, access or Access(None), self._stopping, calls or Calls())
        self._tls = tls
        self._certificates: Any = None
        self._host = f"[{host}]" if ":" in host else host
        self._port = port
        self._options = [
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", max_body + _ROOM),
            # What is sent is bounded by the rows that were asked for.
            ("grpc.max_send_message_length", -1),
        ]
        self._servers: list[Any] = []
        self._health = HealthServicer(self._stopping)

    async def start(self) -> int:
        """Listen, and return the port.

        Raises:
            OSError: If the address cannot be listened on.
        """
        await self._health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        if self._tls is not None:
            self.show(self._tls)
        port = await self._listen(self._port)
        for _ in range(1, _LISTENERS):
            await self._listen(port)
        return port

    async def stop(self, seconds: float) -> None:
        """Take no more requests, and wait at most so many seconds for those that were accepted."""
        if self._servers:
            await self._health.enter_graceful_shutdown()
            self._stopping.set()  # or an open stream would keep the server up for as long as it may take
            # What it holds and has not handed over, gRPC would end with CANCELLED, which no client repeats.
            end = asyncio.get_running_loop().time() + min(seconds, _LONGEST_HANDING_OVER)
            refused = -1
            while refused != self._servicer.refused and asyncio.get_running_loop().time() < end:
                refused = self._servicer.refused
                await asyncio.sleep(_HANDED_OVER_SECONDS)
            await asyncio.gather(*[server.stop(seconds) for server in self._servers])

    def show(self, tls: Tls) -> None:
        """Show these certificates to whoever connects from now on.

        Raises:
            OSError: If a file cannot be read; those before are shown then.
        """
        self._certificates = _certificates(tls)

    async def _listen(self, port: int) -> int:
        """Start one more server, and return its port."""
        server, address = grpc.aio.server(options=self._options), f"{self._host}:{port}"
        server.add_generic_rpc_handlers((self._servicer.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server, pool=pool()
        )
        try:
            port = (
                server.add_insecure_port(address)
                if self._tls is None
                else server.add_secure_port(address, self._credentials(self._tls))
            )
        except RuntimeError as error:
            raise OSError(f"cannot listen for gRPC on {address}: is the port in use?") from error
        await server.start()
        self._servers.append(server)
        return port

    def _credentials(self, tls: Tls) -> Any:
        shown = self._certificates

        def renewed() -> Any:  # in a thread of gRPC's, before each handshake; None goes on with those before
            nonlocal shown
            if shown is self._certificates:
                return None
            shown = self._certificates
            return shown

        return grpc.dynamic_ssl_server_credentials(
            shown, renewed, require_client_authentication=tls.client_ca is not None
        )


def _certificates(tls: Tls) -> Any:
    authority = None if tls.client_ca is None else tls.client_ca.read_bytes()
    return grpc.ssl_server_certificate_configuration(
        [(tls.key.read_bytes(), tls.cert.read_bytes())], root_certificates=authority
    )
