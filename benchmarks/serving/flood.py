"""A flood on one task, and what those feel who ask the others: a core for the server, one for all clients.

    python -m benchmarks.serving.flood               # about 4 minutes
    python -m benchmarks.serving.flood --seconds 1 --rounds 1

One worker serves 20 tasks. Single rows are asked of 19 of them at random times (open loop), as many a second
before the flood as during it, from its first question on; times count from when a request should have been
sent. The flood asks the 20th task without a pause, many rows at once, from a process that only takes what the
other clients leave of their core: what is measured is the server.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.common import write_result
from benchmarks.serving.cores import pinned, yield_to_others
from benchmarks.serving.questions import Questions, Transport, encode
from coterie.cli._bench._clients import connect
from coterie.cli._bench._loops import Measured, open_loop
from coterie.runtime import load
from coterie.runtime.serving import Addresses, running_server

PROMISED = 2.0
CONNECTIONS: Mapping[Transport, int] = {"grpc": 8, "binary": 64}
CALLERS = 64
LEAD = 0.5
"""Seconds for which the others ask before they are measured: a flood does not come to an idle server."""


class Flood(NamedTuple):
    """Clients that ask again as soon as they are answered."""

    transport: Transport
    clients: int
    rows: int


FLOODS = (
    Flood("grpc", 8, 16),
    Flood("binary", 8, 16),
    Flood("grpc", 64, 16),
    Flood("binary", 64, 16),
)


def measured(
    flood: Flood,
    others: Transport,
    at: Addresses,
    questions: Questions,
    *,
    rate: float,
    seconds: float,
    seed: int,
) -> dict[str, float]:
    """Return the times of single rows, before a flood on the first task and during it."""
    ask = partial(_ask, others, at, questions, rate=rate, seconds=seconds, seed=seed)
    before = ask()
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    rows = np.random.default_rng(seed).standard_normal((flood.rows, *questions.rows.shape[2:]))
    request = encode(flood.transport, questions.tasks[0], questions.input, rows.astype(np.float32))
    process = context.Process(
        target=_flood, args=(flood, _address(at, flood.transport), request, theirs), daemon=True
    )
    process.start()
    mine.recv()
    began = 0.0

    def begin() -> None:
        nonlocal began
        began = time.perf_counter()
        mine.send(None)

    during = ask(begin)
    mine.send(None)
    answered, refused = mine.recv()
    taken = time.perf_counter() - began
    process.join()
    return {
        "p50_ms_before": 1000 * before.quantile(0.5),
        "p99_ms_before": 1000 * before.quantile(0.99),
        "p50_ms_during": 1000 * during.quantile(0.5),
        "p99_ms_during": 1000 * during.quantile(0.99),
        "ratio": during.quantile(0.99) / before.quantile(0.99),
        "late_ms": 1000 * during.late,
        "failures": sum(before.failures.values()) + sum(during.failures.values()),
        "flood_rows_a_second": answered * flood.rows / taken,
        "flood_refused_a_second": refused / taken,
    }


def _ask(
    transport: Transport,
    at: Addresses,
    questions: Questions,
    begin: Callable[[], None] = lambda: None,
    *,
    rate: float,
    seconds: float,
    seed: int,
) -> Measured:
    """Ask all but the first task; call ``begin`` in the middle of it, where what is measured begins."""
    others = questions.encoded(transport)[1:]
    picks = np.random.default_rng(seed)
    stream = iter(
        [
            others[picks.integers(len(others))][picks.integers(questions.each)]
            for _ in range(int(rate * LEAD) + int(rate * seconds) + 2)
        ]
    )

    async def ask() -> Measured:
        address = _address(at, transport)
        connections = [await connect(transport, address) for _ in range(CONNECTIONS[transport])]
        shared = list(itertools.islice(itertools.cycle(connections), CALLERS))
        try:
            await open_loop(shared, stream, rate=rate, seconds=LEAD, seed=seed)
            begin()
            return await open_loop(shared, stream, rate=rate, seconds=seconds, seed=seed)
        finally:
            for connection in connections:
                await connection.close()

    return asyncio.run(ask())


def _flood(flood: Flood, address: str, request: bytes, pipe: Connection) -> None:
    """Ask without a pause, in a process of its own, from the first message to the second."""
    yield_to_others()
    uvloop.install()
    asyncio.run(_asking(flood, address, request, pipe))


async def _asking(flood: Flood, address: str, request: bytes, pipe: Connection) -> None:
    clients = [await connect(flood.transport, address) for _ in range(flood.clients)]
    answered, refused, over = 0, 0, False

    async def ask(client: Any) -> None:
        nonlocal answered, refused
        while not over:
            reply = await client.ask(request)
            answered, refused = answered + reply.ok, refused + (not reply.ok)

    for client in clients:
        await client.ask(request)  # gRPC connects no earlier
    loop = asyncio.get_running_loop()
    pipe.send(None)
    await loop.run_in_executor(None, pipe.recv)
    asking = [asyncio.create_task(ask(client)) for client in clients]
    await loop.run_in_executor(None, pipe.recv)
    pipe.send((answered, refused))
    over = True
    await asyncio.gather(*asking)
    for client in clients:
        await client.close()


def _address(at: Addresses, transport: Transport) -> str:
    return str(at.grpc) if transport == "grpc" else at.http


def _medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(each[name] for each in rounds), 2) for name in rounds[0]}


def main() -> None:
    """Measure, print and write."""
    # Only here: the flood's process imports this module again, and needs no torch.
    from benchmarks.export.planted import planted_model
    from benchmarks.serving.engine import export_untrained

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=200.0, help="single rows a second, of the other tasks")
    parser.add_argument("--cores", type=int, nargs=2, default=[0, 1], help="the server's, the clients'")
    parser.add_argument("--bundle", type=Path, help="of one input of numbers; nothing is written then")
    chosen = parser.parse_args()
    uvloop.install()
    with TemporaryDirectory() as scratch, ExitStack() as stack:
        bundle = chosen.bundle or export_untrained(
            planted_model(20, clusters=(5,), experts=20, experts_per_task=5, width=128),
            Path(scratch) / "bundle",
        )
        opened = load(bundle, threads=1).bundle
        spec = opened.manifest.inputs[0]
        tasks = [task.name for task in opened.tasks]
        questions = Questions(tasks, spec.name, [dim or 1 for dim in spec.shape[1:]])
        at = pinned(stack, (chosen.cores[0], chosen.cores[1]), running_server(bundle, threads=1))
        rows: list[dict[str, Any]] = []
        for flood, others in itertools.product(FLOODS, CONNECTIONS):
            found = [
                measured(flood, others, at, questions, rate=chosen.rate, seconds=chosen.seconds, seed=seed)
                for seed in range(chosen.rounds)
            ]
            rows.append({"flood": flood._asdict(), "others": others, **_medians(found)})
    _print(rows)
    result = {
        "seconds": chosen.seconds,
        "rounds": chosen.rounds,
        "rate": chosen.rate,
        "tasks": len(tasks),
        "promised": PROMISED,
        "worst": max(row["ratio"] for row in rows),
        "rows": rows,
    }
    if chosen.bundle is None:
        print(write_result("serving_flood", result))


def _print(rows: Sequence[dict[str, Any]]) -> None:
    table = Table(
        *("flood", "its rows/s", "refused/s", "others", "p50 ms before", "during", "p99 ms before", "during"),
        *("ratio", "client late, ms"),
    )
    for row in rows:
        flood = row["flood"]
        table.add_row(
            f"{flood['clients']} x {flood['rows']} rows, {flood['transport']}",
            *(f"{row['flood_rows_a_second']:.0f}", f"{row['flood_refused_a_second']:.0f}", row["others"]),
            *(f"{row['p50_ms_before']:.2f}", f"{row['p50_ms_during']:.2f}"),
            *(f"{row['p99_ms_before']:.2f}", f"{row['p99_ms_during']:.2f}", f"{row['ratio']:.2f}"),
            f"{row['late_ms']:.2f}",
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
