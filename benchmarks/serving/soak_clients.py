"""Client processes that ask without a pause, check every answer, and note what came of every request."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import uvloop

from benchmarks.serving.cores import yield_to_others
from benchmarks.serving.questions import Transport, decode, encode
from coterie.cli._bench._clients import Client, connect
from coterie.runtime.serving import Addresses

TOLERANCE = 1e-3
PATIENCE = 30.0
"""Seconds for which a request is sent again whose connection broke."""
TRANSPORTS: tuple[Transport, ...] = ("grpc", "binary", "json", "grpc")


class Note(NamedTuple):
    """What came of one request."""

    sent: float
    """When it was first sent, on ``time.monotonic``, which is one clock for all processes."""
    seconds: float
    task: int
    outcome: str
    """``answered``, ``lost`` (no answer, however often it was sent), or what it was refused with."""
    version: str = ""
    """Which version the answer says it is of."""
    bundle: int = -1
    """Which bundle's numbers the answer has; -1 is none's."""
    broken: tuple[float, ...] = ()
    """When connections broke that it waited on."""
    why: str = ""
    """What the last of them was said to have broken of, and what it was."""


@dataclass(frozen=True)
class Work:
    """What a client process does.

    Attributes:
        addresses: Of the server.
        tasks: The models.
        input: Name of their input.
        rows: ``[N, K, ...]``, of each task K inputs of its own.
        expected: ``[bundles, N, K, C]``, what each bundle scores them.
        clients: Connections.
        pause: Mean seconds between an answer and the next request; 0 asks again at once.
        only: The one task that is asked, all its inputs in one request; ``None`` asks all, row by row.
        seed: Of what is asked when.
        yields: Whether the process gives way to others where cores are short.
    """

    addresses: Addresses
    tasks: tuple[str, ...]
    input: str
    rows: npt.NDArray[np.float32]
    expected: npt.NDArray[np.float32]
    clients: int = 8
    pause: float = 0.02
    only: int | None = None
    seed: int = 0
    yields: bool = False


@dataclass
class Notes:
    """What the processes tell once they have ended."""

    all: list[Note] = field(default_factory=list)


@contextmanager
def asking(works: Sequence[Work]) -> Iterator[Notes]:
    """Let processes ask while the ``with`` block lasts; their notes are there after it."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in works]
    processes = [
        context.Process(target=_run, args=(work, theirs), daemon=True)
        for work, (_, theirs) in zip(works, pipes, strict=True)
    ]
    for process in processes:
        process.start()
    notes = Notes()
    try:
        for mine, _ in pipes:
            mine.recv()  # it has begun
        yield notes
    finally:
        for mine, _ in pipes:
            mine.send(None)
        for mine, _ in pipes:
            notes.all += mine.recv()
        for process in processes:
            process.join()


def _run(work: Work, pipe: Connection) -> None:
    if work.yields:
        yield_to_others()
    uvloop.install()
    asyncio.run(_Clients(work, pipe).run())


class _Clients:
    def __init__(self, work: Work, pipe: Connection) -> None:
        self._work, self._pipe = work, pipe
        self._notes: list[Note] = []
        self._over = False
        self._random = np.random.default_rng(work.seed)

    async def run(self) -> None:
        """Ask until the parent says that it is enough, and send it the notes."""
        clients = [
            asyncio.create_task(self._ask(TRANSPORTS[number % len(TRANSPORTS)]))
            for number in range(self._work.clients)
        ]
        self._pipe.send(None)
        await asyncio.get_running_loop().run_in_executor(None, self._pipe.recv)
        self._over = True
        await asyncio.gather(*clients)
        self._pipe.send(self._notes)

    async def _ask(self, transport: Transport) -> None:
        work = self._work
        tasks, each = work.rows.shape[:2]
        client: Client | None = None
        while not self._over:
            if work.pause:
                await asyncio.sleep(self._random.exponential(work.pause))
            task = int(self._random.integers(tasks)) if work.only is None else work.only
            first = int(self._random.integers(each)) if work.only is None else 0
            asked = slice(first, first + 1) if work.only is None else slice(None)
            request = encode(transport, work.tasks[task], work.input, work.rows[task, asked])
            client = await self._answered(client, transport, request, task, asked)
        if client is not None:
            await client.close()

    async def _answered(
        self, client: Client | None, transport: Transport, request: bytes, task: int, asked: slice
    ) -> Client | None:
        """Send a request until it is answered, note what came of it, and return the connection."""
        address = str(self._work.addresses.grpc) if transport == "grpc" else self._work.addresses.http
        sent, broken, why = time.monotonic(), [], ""
        while True:
            try:
                client = client or await connect(transport, address)
                began = time.monotonic()
                reply = await client.ask(request)
                break
            except OSError as error:
                broken.append(time.monotonic())
                why = f"{transport}: {error}"[:200]
                if client is not None:
                    with contextlib.suppress(OSError):
                        await client.close()
                client = None
                if self._over or broken[-1] - sent > PATIENCE:
                    self._note(Note(sent, broken[-1] - sent, task, "lost", broken=tuple(broken), why=why))
                    return None
                await asyncio.sleep(0.05)
        told = decode(transport, reply) if reply.ok else None
        # How long it took counts from the attempt that was answered: the others' connections were broken.
        note = Note(sent, time.monotonic() - began, task, "answered" if told else reply.status)
        if told is not None:
            right_task = told.model == self._work.tasks[task]
            bundle = self._bundle(told.scores, task, asked) if right_task else -1
            note = note._replace(version=told.version, bundle=bundle)
        self._note(note._replace(broken=tuple(broken), why=why))
        return client

    def _bundle(self, scores: Any, task: int, asked: slice) -> int:
        expected = self._work.expected[:, task, asked, : scores.shape[-1]]
        same = [np.allclose(scores, each, rtol=0, atol=TOLERANCE) for each in expected]
        return same.index(True) if any(same) else -1

    def _note(self, note: Note) -> None:
        self._notes.append(note)
