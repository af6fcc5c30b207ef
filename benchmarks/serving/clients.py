"""Clients that cost little: requests are bytes made beforehand, answers are read only as far as is needed.

What measures a server must not be what is slow. Neither of these builds or parses tensors while it asks.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, NamedTuple, Protocol, Self

import grpc

METHOD = "/inference.GRPCInferenceService/ModelInfer"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Reply(NamedTuple):
    """What came back."""

    status: str
    """``OK``, or what else: HTTP's number, the name of gRPC's code."""
    body: bytes
    head: bytes = b""
    """HTTP's status line and headers."""

    @property
    def ok(self) -> bool:
        """Whether it is an answer."""
        return self.status == "OK"


class Client(Protocol):
    """A connection that is asked one thing at a time."""

    async def ask(self, request: bytes) -> Reply:
        """Send a request, and return what comes back.

        Raises:
            ConnectionError: If the connection ends before an answer is there.
        """

    async def close(self) -> None:
        """End the connection."""


class HttpClient(asyncio.Protocol):
    """One kept-alive HTTP connection."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._waiting: asyncio.Future[Reply] | None = None

    @classmethod
    async def open(cls, address: str) -> Self:
        """Connect to ``host:port``."""
        host, _, port = address.rpartition(":")
        client = cls()
        await asyncio.get_running_loop().create_connection(lambda: client, host, int(port))
        return client

    async def ask(self, request: bytes) -> Reply:
        """Send a request, head and body, and return what comes back."""
        if self._transport is None:
            raise ConnectionError("the connection is closed")
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting = waiting
        self._transport.write(request)
        return await waiting

    async def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection as a program does that is killed: whatever is on its way is lost."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: Any) -> None:
        """Take the connection."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Wait for the whole of an answer."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end]
        found = _LENGTH.search(head)
        length = int(found[1]) if found else 0
        if len(self._buffer) < end + 4 + length:
            return
        body, self._buffer = self._buffer[end + 4 : end + 4 + length], self._buffer[end + 4 + length :]
        status = head[9:12].decode()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(Reply("OK" if status == "200" else status, body, head))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._transport = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionError(f"closed before an answer: {exc or 'end of stream'}"))


class GrpcClient:
    """One gRPC connection; unlike HTTP's it may be asked many things at once."""

    def __init__(self, address: str) -> None:
        # Channels of one process share their connections unless they are told not to.
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self._infer = self._channel.unary_unary(METHOD)

    async def ask(self, request: bytes) -> Reply:
        """Send a serialised request, and return what comes back."""
        try:
            return Reply("OK", await self._infer(request))
        except grpc.aio.AioRpcError as error:
            details = error.details() or ""
            if error.code() == grpc.StatusCode.UNAVAILABLE and "retry-after" not in dict(
                error.trailing_metadata() or ()
            ):
                # No server said this: the connection did.
                raise ConnectionError(details) from error
            return Reply(error.code().name, details.encode())

    async def close(self) -> None:
        """End the connection."""
        await self._channel.close()


async def connect(transport: str, address: str) -> Client:
    """Return a connection for ``grpc``, ``binary`` or ``json``."""
    return GrpcClient(address) if transport == "grpc" else await HttpClient.open(address)
