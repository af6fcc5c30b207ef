"""Two ways to ask a server: clients that wait for their answers, and clients that come when they come."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from coterie.cli._bench._clients import Client


@dataclass
class Measured:
    """What came of asking."""

    seconds: float
    """How long it was asked."""
    latencies: list[float] = field(default_factory=list)
    """Seconds to each answer: closed loop, from when it was sent; open, from when it should have been."""
    failures: Counter[str] = field(default_factory=Counter)
    """What came instead of answers, and how often."""
    client_cpu: float = 0.0
    """Of one core, what the client itself took; near 1 it is the client that was measured."""
    server_cpu: float = 0.0
    """Seconds of a core that the server took, where somebody has measured them."""
    late: float = 0.0
    """Open loop: seconds after its time at which the 99th of 100 requests was sent."""

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        """Return the seconds within which that share of the answers was there."""
        return float(np.quantile(self.latencies, share)) if self.latencies else float("nan")

    def summary(self) -> dict[str, Any]:
        """Return the figures, times in milliseconds."""
        return {
            "rate": round(self.rate, 1),
            "p50_ms": round(1000 * self.quantile(0.5), 3),
            "p99_ms": round(1000 * self.quantile(0.99), 3),
            "failures": dict(self.failures),
            "client_cpu": round(self.client_cpu, 3),
            "server_ms_a_request": round(1000 * self.server_cpu / max(1, len(self.latencies)), 3),
        }


async def closed_loop(clients: Sequence[Client], requests: Iterator[bytes], seconds: float) -> Measured:
    """Let every client ask, wait for the answer, and ask again."""
    measured = Measured(seconds)
    end = time.perf_counter() + seconds

    async def ask(client: Client) -> None:
        while (start := time.perf_counter()) < end:
            reply = await client.ask(next(requests))
            if reply.ok:
                measured.latencies.append(time.perf_counter() - start)
            else:
                measured.failures[reply.status] += 1

    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*map(ask, clients))
    measured.seconds = time.perf_counter() - began
    measured.client_cpu = (time.process_time() - cpu) / measured.seconds
    return measured


async def open_loop(
    clients: Sequence[Client], requests: Iterator[bytes], *, rate: float, seconds: float, seed: int
) -> Measured:
    """Send requests at random times (Poisson), whether or not the earlier ones are answered.

    A request that finds all clients busy waits for one; its time counts from when it should have been sent.
    So a server that stops for a while is charged with all that should have been asked meanwhile.
    """
    gaps = np.random.default_rng(seed).exponential(1 / rate, size=int(rate * seconds))
    due = time.perf_counter() + 0.05 + np.cumsum(gaps)
    measured = Measured(float(due[-1] - due[0]))
    free: asyncio.Queue[Client] = asyncio.Queue()
    for client in clients:
        free.put_nowait(client)
    lags: list[float] = []
    asked: set[asyncio.Task[None]] = set()

    async def ask(request: bytes, when: float) -> None:
        client = await free.get()
        try:
            reply = await client.ask(request)
        except ConnectionError:
            # Not put back: nobody else should lose a request to it.
            measured.failures["connection"] += 1
            return
        free.put_nowait(client)
        if reply.ok:
            measured.latencies.append(time.perf_counter() - when)
        else:
            measured.failures[reply.status] += 1

    def send(when: float) -> None:
        lags.append(time.perf_counter() - when)
        task = loop.create_task(ask(next(requests), when))
        asked.add(task)
        task.add_done_callback(asked.discard)

    loop, sent = asyncio.get_running_loop(), asyncio.Event()

    def keep_time() -> None:
        # A thread, since an event loop's timers go by whole milliseconds.
        for when in due.tolist():
            time.sleep(max(0.0, when - time.perf_counter()))
            loop.call_soon_threadsafe(send, when)
        loop.call_soon_threadsafe(sent.set)

    cpu, began = time.process_time(), time.perf_counter()
    clock = threading.Thread(target=keep_time, daemon=True)
    clock.start()
    await sent.wait()
    while asked:
        await asyncio.wait(asked)
    measured.client_cpu = (time.process_time() - cpu) / (time.perf_counter() - began)
    measured.late = float(np.quantile(lags, 0.99))
    return measured
