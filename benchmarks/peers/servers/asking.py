"""Asks servers of any protocol over HTTP the same questions in the same order."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.peers.servers.peer import Floats
from benchmarks.serving.cores import cpu_seconds
from benchmarks.serving.questions import Questions, Traffic
from coterie.cli._bench._clients import HttpClient, Reply
from coterie.cli._bench._loops import Measured, closed_loop, open_loop
from coterie.runtime import Engine
from coterie.runtime.serving import Addresses

REQUESTS = 20_000
OPEN_CLIENTS = 128
PATIENCE = 60.0
"""Seconds beyond its own after which a measurement is given up."""
TOLERANCE = 1e-4

Loop = Callable[[Sequence[HttpClient], Iterator[bytes]], Coroutine[Any, Any, Measured]]


@dataclass(frozen=True)
class Side:
    """A server that runs, and how it is asked."""

    title: str
    at: Addresses
    encode: Callable[[str, str, Floats], bytes]
    decode: Callable[[Reply], Floats]


class Asker:
    """Asks questions of one row, no two alike.

    Args:
        engine: Of the bundle, for the right answers.
        seconds: Of each measurement.
        clients: Of the closed loop.
    """

    def __init__(self, engine: Engine, *, seconds: float, clients: int) -> None:
        spec = engine.bundle.manifest.inputs[0]
        tasks = [task.name for task in engine.tasks]
        self._name, self._engine, self._seconds, self._clients = spec.name, engine, seconds, clients
        self._questions = Questions(
            tasks, spec.name, [dim or 1 for dim in spec.shape[1:]], each=max(8, 1280 // len(tasks))
        )
        self._encoded: dict[Side, list[list[bytes]]] = {}

    def check(self, side: Side) -> None:
        """Ask every task once, and compare the numbers with the engine's own."""
        asyncio.run(asyncio.wait_for(self._check(side), PATIENCE))

    def closed(self, side: Side, *, traffic: Traffic, seed: int) -> Measured:
        """Ask with clients that wait for their answers."""

        async def loop(connections: Sequence[HttpClient], requests: Iterator[bytes]) -> Measured:
            return await closed_loop(connections, requests, self._seconds)

        return self._asked(side, self._stream(side, traffic, seed), self._clients, loop)

    def open(self, side: Side, *, traffic: Traffic, rate: float, seed: int) -> Measured:
        """Ask at a rate."""

        async def loop(connections: Sequence[HttpClient], requests: Iterator[bytes]) -> Measured:
            return await open_loop(connections, requests, rate=rate, seconds=self._seconds, seed=seed)

        return self._asked(side, self._stream(side, traffic, seed), OPEN_CLIENTS, loop)

    def _asked(self, side: Side, stream: Sequence[bytes], clients: int, loop: Loop) -> Measured:
        async def ask() -> Measured:
            connections = [await HttpClient.open(side.at.http) for _ in range(clients)]
            try:
                before = cpu_seconds(side.at.pid)
                measured = await loop(connections, itertools.cycle(stream))
                measured.server_cpu = cpu_seconds(side.at.pid) - before
                return measured
            finally:
                for connection in connections:
                    await connection.close()

        return asyncio.run(asyncio.wait_for(ask(), self._seconds + PATIENCE))

    def _stream(self, side: Side, traffic: Traffic, seed: int) -> list[bytes]:
        if side not in self._encoded:
            self._encoded[side] = [
                [side.encode(task, self._name, row[None]) for row in rows]
                for task, rows in zip(self._questions.tasks, self._questions.rows, strict=True)
            ]
        return self._questions.ordered(self._encoded[side], traffic, REQUESTS, seed)

    async def _check(self, side: Side) -> None:
        client = await HttpClient.open(side.at.http)
        for task, rows in zip(self._questions.tasks, self._questions.rows, strict=True):
            reply = await client.ask(side.encode(task, self._name, rows[:1]))
            if not reply.ok:
                raise SystemExit(f"{side.title}: {reply.status} {reply.body[:200]!r}")
            expected = self._engine.predict(task, rows[:1]).scores
            if not np.allclose(side.decode(reply), expected, atol=TOLERANCE):
                raise SystemExit(f"{side.title}: a wrong answer of {task}")
        await client.close()
