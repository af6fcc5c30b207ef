"""What happens to a server while it is asked: new versions, a killed worker, rude clients, a flood."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.serving.questions import encode
from benchmarks.serving.soak_clients import Note, Work, asking
from coterie.cli._bench._clients import METHOD, HttpClient
from coterie.runtime.serving import Addresses
from coterie.runtime.store import Store, Trial

RUDE = 40
FLOOD = {"clients": 8, "pause": 0.0, "yields": True}
"""It comes from the same machine: for its cores it should not compete with what it is compared with."""


@dataclass
class Story:
    """What was done when, on ``time.monotonic``.

    Attributes:
        served: From when on which versions may answer whoever names none.
        bundles: Which bundle each version is.
        kills: When a worker was killed, and after how many seconds another was there.
        floods: From when to when one task was flooded, and which.
        quiet: As long before each flood nothing was done.
        events: What was done, and when it was over.
        flood_notes: What came of the flood's own requests.
    """

    served: list[tuple[float, frozenset[str]]] = field(default_factory=list)
    bundles: dict[str, int] = field(default_factory=dict)
    kills: list[tuple[float, float]] = field(default_factory=list)
    floods: list[tuple[float, float, int]] = field(default_factory=list)
    quiet: list[tuple[float, float]] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)
    flood_notes: list[Note] = field(default_factory=list)


class Script:
    """Does all of it, again and again.

    Args:
        store: What is served; its first version is the first of the bundles.
        bundles: That are deployed in turn.
        addresses: Of the server.
        work: Of one of the client processes; floods are made of it.
        workers: How many processes answer.
        pause: Seconds between two events; a flood lasts three times as long.
    """

    def __init__(
        self,
        store: Store,
        bundles: Sequence[Path],
        addresses: Addresses,
        work: Work,
        *,
        workers: int,
        pause: float,
    ) -> None:
        self._store, self._sources = store, bundles
        self._addresses, self._work = addresses, work
        self._workers, self._pause = workers, pause
        self._next = 0
        self.story = Story(bundles={"1": 0})
        self._served("1")

    def run(self, seconds: float) -> None:
        """Go through all events until the time is over, each of them at least once."""
        end = time.monotonic() + seconds
        steps: tuple[Callable[[], None], ...] = (
            self._deploy,
            self._roll_back,
            self._canary,
            self._promote,
            self._kill,
            self._disconnect,
            self._flood,
        )
        while True:
            for step in steps:
                time.sleep(self._pause)
                step()
                self.story.events.append((time.monotonic(), step.__name__.strip("_")))
                if time.monotonic() > end and len(self.story.events) >= len(steps):
                    time.sleep(self._pause)
                    return

    def _served(self, *versions: str) -> None:
        self.story.served.append((time.monotonic(), frozenset(versions)))

    def _add(self) -> str:
        """Put a version into the store, of another bundle than the one that is served."""
        bundle = (self.story.bundles[str(self._store.pointer().current)] + 1) % len(self._sources)
        number = str(self._store.add(self._sources[bundle]))
        self.story.bundles[number] = bundle
        return number

    def _deploy(self) -> None:
        number = self._add()
        self._served(number)
        self._store.switch(int(number))

    def _roll_back(self) -> None:
        pointer = self._store.pointer()
        self._served(str(pointer.history[-2]))
        self._store.rollback()

    def _canary(self) -> None:
        number = self._add()
        self._served(str(self._store.pointer().current), number)
        self._store.put_on_trial(Trial(version=int(number), share=0.3))

    def _promote(self) -> None:
        number = max(map(int, self.story.bundles))
        self._served(str(number))
        self._store.switch(number)

    def _kill(self) -> None:
        victim = self.workers()[0]
        began = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        deadline = began + 60
        # The one that was killed may still be counted while it dies.
        while len([each for each in self.workers() if each != victim]) < self._workers:
            if time.monotonic() > deadline:
                raise SystemExit("a killed worker was not replaced within a minute")
            time.sleep(0.05)
        self.story.kills.append((began, time.monotonic() - began))

    def _disconnect(self) -> None:
        asyncio.run(self._rude())

    def _flood(self) -> None:
        task = self._next % len(self._work.tasks)
        self._next += 1
        began = time.monotonic()
        time.sleep(3 * self._pause)
        self.story.quiet.append((began, time.monotonic()))
        work = Work(**{**vars(self._work), **FLOOD, "only": task})
        with asking([work]) as notes:
            began = time.monotonic()
            time.sleep(3 * self._pause)
            self.story.floods.append((began, time.monotonic(), task))
        self.story.flood_notes += notes.all

    def workers(self) -> list[int]:
        """Return the processes that answer: those that listen for gRPC."""
        port = int(str(self._addresses.grpc).rpartition(":")[2])
        found = []
        for process in psutil.Process(self._addresses.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any(
                    each.laddr and each.laddr.port == port and each.status == psutil.CONN_LISTEN
                    for each in process.net_connections()
                ):
                    found.append(process.pid)
        return sorted(found)

    async def _rude(self) -> None:
        """Go away in the middle of a request, and in the middle of an answer, over both transports."""
        import grpc

        work = self._work
        request = encode("binary", work.tasks[0], work.input, work.rows[0])
        message = encode("grpc", work.tasks[0], work.input, work.rows[0])
        for number in range(RUDE):
            client = await HttpClient.open(self._addresses.http)
            asked = asyncio.ensure_future(client.ask(request if number % 2 else request[: len(request) // 2]))
            await asyncio.sleep(0.001 * (number % 5))
            client.abort()
            await asyncio.gather(asked, return_exceptions=True)
        async with grpc.aio.insecure_channel(str(self._addresses.grpc)) as channel:
            for number in range(RUDE):
                call = channel.unary_unary(METHOD)(message)
                await asyncio.sleep(0.001 * (number % 5))
                call.cancel()
