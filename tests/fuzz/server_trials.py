"""Sends what may come to a real server, and judges what comes back.

Allowed are answers, and refusals that name the client's mistake. Not allowed: a 500, ``INTERNAL`` or
``UNKNOWN``, no answer at all, a server that has gone, and a path or a stack trace in whatever is said.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc

from .calls import SERVICE, STREAM, Call, call
from .requests import HttpCase, Target, http_case

SECONDS = 20.0
"""After so long without an answer there will be none."""
HTTP_ALLOWED = {"200", "400", "403", "404", "405", "413", "414", "415", "429", "431", "503", "504"}
GRPC_ALLOWED = {
    "OK",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "RESOURCE_EXHAUSTED",
    "PERMISSION_DENIED",
    "UNIMPLEMENTED",
    "DEADLINE_EXCEEDED",
}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Outcome:
    """What came of one case."""

    transport: str
    seed: int
    kind: str
    status: str
    """HTTP's number, the name of gRPC's code, ``closed`` or ``silent``."""
    wrong: str = ""
    """What is not allowed about it."""


class Judge:
    """Knows what no answer may hold.

    Args:
        secrets: Paths of the server's.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = [
            *("Traceback", 'File "', "site-packages", '.py"', ".py:", " object at 0x", sys.prefix),
            *(each for each in secrets if each),
        ]

    def leak(self, text: str) -> str:
        """Return what of the server's own an answer holds."""
        found = [secret for secret in self._secrets if secret in text]
        return f"holds {found[0]!r}: {text[:300]}" if found else ""


async def over_http(
    address: str, target: Target, seeds: Iterable[int], judge: Judge, connections: int = 8
) -> list[Outcome]:
    """Send a case for each seed over HTTP."""
    host, _, port = address.rpartition(":")
    outcomes: list[Outcome] = []
    waiting = iter(seeds)

    async def work() -> None:
        connection: Any = None
        for seed in waiting:
            case = http_case(target, seed)
            if connection is None:
                connection = await asyncio.open_connection(host, int(port))
            status, text, keep = await _exchange(*connection, case)
            wrong = judge.leak(text)
            if case.whole or status not in ("closed", "silent"):
                wrong = wrong or ("" if status in HTTP_ALLOWED else f"status {status}: {text[:300]}")
            outcomes.append(Outcome("http", seed, case.kind, status, wrong))
            if not keep:
                connection[1].close()
                connection = None

    await asyncio.gather(*(work() for _ in range(connections)))
    return outcomes


async def over_grpc(
    address: str, target: Target, seeds: Iterable[int], judge: Judge, at_once: int = 8
) -> list[Outcome]:
    """Send a case for each seed over gRPC."""
    outcomes: list[Outcome] = []
    waiting = iter(seeds)
    async with grpc.aio.insecure_channel(address) as channel:

        async def work() -> None:
            for seed in waiting:
                made = call(target, seed)
                status, text = await _call(channel, made)
                wrong = judge.leak(text) or (
                    "" if status in GRPC_ALLOWED else f"status {status}: {text[:300]}"
                )
                outcomes.append(Outcome("grpc", seed, made.kind, status, wrong))

        await asyncio.gather(*(work() for _ in range(at_once)))
    return outcomes


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, case: HttpCase
) -> tuple[str, str, bool]:
    """Send a request; return its status, all that was said, and whether the connection can be used again."""
    said = b""
    try:
        async with asyncio.timeout(SECONDS):
            writer.write(case.data)
            # The server may answer, and stop reading, before all is sent.
            with contextlib.suppress(ConnectionError):
                await writer.drain()
                if not case.whole and writer.can_write_eof():
                    writer.write_eof()  # or it would wait for the rest
            while not _complete(said):
                chunk = await reader.read(1 << 16)
                if not chunk:
                    break
                said = (said + chunk).removeprefix(_CONTINUE)
    except ConnectionError:
        pass
    except TimeoutError:
        return "silent", said.decode("utf-8", "replace"), False
    text = said.decode("utf-8", "replace")
    if not said.startswith(b"HTTP/1."):
        return "closed", text, False
    keep = case.whole and _complete(said) and b"connection: close" not in said.lower()
    return said[9:12].decode("ascii", "replace"), text, keep


def _complete(said: bytes) -> bool:
    end = said.find(b"\r\n\r\n")
    if end < 0:
        return False
    found = _LENGTH.search(said[:end])
    return found is not None and len(said) >= end + 4 + int(found[1])


async def _call(channel: Any, made: Call) -> tuple[str, str]:
    try:
        if made.method == STREAM:
            return "OK", await _converse(channel, made)
        unary = channel.unary_unary(SERVICE + made.method)
        answer = await unary(made.messages[0], timeout=SECONDS, metadata=made.metadata)
        return "OK", answer.decode("utf-8", "replace")
    except grpc.aio.AioRpcError as error:
        trailers = " ".join(f"{key}={value!r}" for key, value in error.trailing_metadata() or ())
        # The client's own clock, and not a server that was asked to be quick.
        gave_up = error.code() == grpc.StatusCode.DEADLINE_EXCEEDED and error.details() == "Deadline Exceeded"
        status = "silent" if gave_up else error.code().name
        return status, f"{error.details()} {trailers}"


async def _converse(channel: Any, made: Call) -> str:
    """Send a stream's messages, each when the one before is answered: nothing is sent after its end."""
    stream = channel.stream_stream(SERVICE + made.method)(timeout=SECONDS, metadata=made.metadata)
    said = []
    for message in made.messages:
        await stream.write(message)
        answer = await stream.read()
        if answer is grpc.aio.EOF:
            break
        said.append(answer.decode("utf-8", "replace"))
    else:
        await stream.done_writing()
        await stream.read()
    if (code := await stream.code()) != grpc.StatusCode.OK:
        details, trailers = await stream.details(), await stream.trailing_metadata()
        raise grpc.aio.AioRpcError(code, await stream.initial_metadata(), trailers, details)
    return "".join(said)
