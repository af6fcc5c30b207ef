"""A server under load, side by side with MLServer over the same graphs: a core for it, one for the client.

    python -m benchmarks.serving.load                # about 20 minutes
    python -m benchmarks.serving.load --seconds 1 --rounds 1

20 tasks, single rows, no two alike. Closed loop: clients ask, wait, and ask again: what a server can do.
Open loop: requests come at random times at a part of the rate that MLServer can do, whether or not earlier
ones are answered; times count from when a request should have been sent. The servers are asked in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.common import write_result
from benchmarks.peers import environment
from benchmarks.peers.mlserver import Tuning, running_mlserver
from benchmarks.serving.cores import cpu_seconds, pinned
from benchmarks.serving.engine import make_bundle
from benchmarks.serving.questions import TRANSPORTS, Questions, Traffic, Transport, decode
from coterie.cli._bench._clients import connect
from coterie.cli._bench._loops import Measured, closed_loop, open_loop
from coterie.runtime import Engine, load
from coterie.runtime.serving import Addresses, running_server

TRAFFICS: tuple[Traffic, ...] = ("uniform", "zipf")
TUNINGS = {
    "as it is": Tuning(),
    "adaptive batching": Tuning(batch_rows=32, batch_seconds=0.001),
    "a worker process": Tuning(parallel_workers=1),
}
COUNTERPART: Mapping[Transport, Transport] = {"grpc": "grpc", "binary": "json", "json": "json"}
"""What MLServer is asked by: it takes no binary tensors over HTTP."""
PROMISED = {"throughput": 3.0, "p99": 2.0}
REQUESTS = 20_000
OPEN_CLIENTS = 128


class Asker:
    """Asks servers the same questions in the same order."""

    def __init__(self, questions: Questions, engine: Engine, seconds: float) -> None:
        self._questions, self._engine, self._seconds = questions, engine, seconds
        self._streams: dict[tuple[Transport, Traffic], list[bytes]] = {}

    def closed(self, at: Addresses, transport: Transport, traffic: Traffic, clients: int) -> Measured:
        """Ask with so many clients."""

        async def ask(connections: list[Any], requests: Iterator[bytes]) -> Measured:
            return await closed_loop(connections, requests, self._seconds)

        return asyncio.run(self._asked(at, transport, traffic, clients, ask))

    def open(self, at: Addresses, transport: Transport, traffic: Traffic, rate: float, seed: int) -> Measured:
        """Ask at a rate."""

        async def ask(connections: list[Any], requests: Iterator[bytes]) -> Measured:
            return await open_loop(connections, requests, rate=rate, seconds=self._seconds, seed=seed)

        return asyncio.run(self._asked(at, transport, traffic, OPEN_CLIENTS, ask))

    async def check(self, at: Addresses, transport: Transport) -> None:
        """Ask every task once, and compare the numbers with the engine's own."""
        client = await connect(transport, _address(at, transport))
        requests = self._questions.encoded(transport)
        for number, task in enumerate(self._questions.tasks):
            reply = await client.ask(requests[number][0])
            if not reply.ok:
                raise SystemExit(f"{transport}: {reply.status} {reply.body[:200]!r}")
            expected = self._engine.predict(task, self._questions.rows[number, :1]).scores
            if not np.allclose(decode(transport, reply).scores, expected, atol=1e-4):
                raise SystemExit(f"{transport}: a wrong answer of {task}")
        await client.close()

    async def _asked(
        self, at: Addresses, transport: Transport, traffic: Traffic, clients: int, ask: Any
    ) -> Measured:
        key = (transport, traffic)
        if key not in self._streams:
            self._streams[key] = self._questions.stream(transport, traffic, REQUESTS, seed=0)
        # gRPC asks many things over one connection; a few of them, as a few callers have.
        channels = min(clients, 8) if transport == "grpc" else clients
        connections = [await connect(transport, _address(at, transport)) for _ in range(channels)]
        shared = list(itertools.islice(itertools.cycle(connections), clients))
        try:
            for connection in connections:
                await connection.ask(self._streams[key][0])
            before = cpu_seconds(at.pid)
            result: Measured = await ask(shared, itertools.cycle(self._streams[key]))
            result.server_cpu = cpu_seconds(at.pid) - before
            return result
        finally:
            for connection in connections:
                await connection.close()


def measured_tunings(
    asker: Asker, servers: Mapping[str, Addresses], rounds: int
) -> dict[Transport, dict[str, float]]:
    """Return how many answers a second each tuning of MLServer gives, over gRPC and as JSON."""
    rates: dict[Transport, dict[str, list[float]]] = {
        transport: {name: [] for name in servers} for transport in ("grpc", "json")
    }
    for _, (transport, found), (name, server) in itertools.product(
        range(rounds), rates.items(), servers.items()
    ):
        found[name].append(asker.closed(server, transport, "uniform", 16).rate)
    return {
        transport: {name: round(statistics.median(each), 1) for name, each in found.items()}
        for transport, found in rates.items()
    }


def compared(
    asker: Asker,
    ours: Addresses,
    theirs: Mapping[Transport, Addresses],
    *,
    clients: Sequence[int],
    loads: Sequence[float],
    rounds: int,
) -> dict[str, Any]:
    """Measure everything, the two servers in turn."""
    found: dict[str, Any] = {"closed": [], "open": []}
    for transport, traffic in itertools.product(TRANSPORTS, TRAFFICS):
        peer = theirs[COUNTERPART[transport]]
        their_best = 0.0
        for count in clients:
            pairs = [
                (
                    asker.closed(ours, transport, traffic, count),
                    asker.closed(peer, COUNTERPART[transport], traffic, count),
                )
                for _ in range(rounds)
            ]
            row = _row(pairs, transport=transport, traffic=traffic, clients=count)
            their_best = max(their_best, row["mlserver"]["rate"])
            found["closed"].append(row)
        for load_ in loads:
            rate = load_ * their_best
            pairs = [
                (
                    asker.open(ours, transport, traffic, rate, seed),
                    asker.open(peer, COUNTERPART[transport], traffic, rate, seed),
                )
                for seed in range(rounds)
            ]
            row = _row(pairs, transport=transport, traffic=traffic, offered=round(rate, 1), load=load_)
            found["open"].append(row)
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64, 256], help="of the closed loop")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.5, 0.8], help="parts of MLServer's most")
    parser.add_argument("--cores", type=int, nargs=2, default=[0, 1], help="the servers', the client's")
    parser.add_argument("--bundle", type=Path, help="of one input of numbers; nothing is written then")
    chosen = parser.parse_args()
    programs = environment("mlserver")
    if isinstance(programs, str):
        raise SystemExit(programs)
    cores = (chosen.cores[0], chosen.cores[1])
    uvloop.install()
    with TemporaryDirectory() as scratch, ExitStack() as stack:
        engine = load(chosen.bundle or make_bundle(Path(scratch) / "bundle"), threads=1)
        spec = engine.bundle.manifest.inputs[0]
        questions = Questions(
            [task.name for task in engine.tasks], spec.name, [dim or 1 for dim in spec.shape[1:]]
        )
        asker = Asker(questions, engine, chosen.seconds)
        ours = pinned(stack, cores, running_server(engine.bundle.path, threads=1))
        peers: dict[str, Addresses] = {}
        others: dict[str, ExitStack] = {}
        for number, (name, tuning) in enumerate(TUNINGS.items()):
            folder = Path(scratch) / f"mlserver-{number}"
            folder.mkdir()
            others[name] = stack.enter_context(ExitStack())
            peers[name] = pinned(
                others[name], cores, running_mlserver(programs, engine.bundle, folder, tuning)
            )
        rates = measured_tunings(asker, peers, chosen.rounds)
        best = {transport: max(found, key=lambda name: found[name]) for transport, found in rates.items()}
        for name in peers.keys() - set(best.values()):
            others[name].close()
        theirs = {transport: peers[name] for transport, name in best.items()}
        for transport in TRANSPORTS:
            asyncio.run(asker.check(ours, transport))
            asyncio.run(asker.check(theirs[COUNTERPART[transport]], COUNTERPART[transport]))
        rows = compared(asker, ours, theirs, clients=chosen.clients, loads=chosen.loads, rounds=chosen.rounds)
    _print(rows, rates)
    result = {
        "tasks": len(questions.tasks),
        "seconds": chosen.seconds,
        "rounds": chosen.rounds,
        "mlserver": {each: {"used": best[each], "rates": found} for each, found in rates.items()},
        "promised": PROMISED,
        **rows,
    }
    if chosen.bundle is None:
        print(write_result("serving_load", result))


def _address(at: Addresses, transport: Transport) -> str:
    return str(at.grpc) if transport == "grpc" else at.http


def _row(pairs: Sequence[tuple[Measured, Measured]], **about: Any) -> dict[str, Any]:
    """Return the medians over the rounds, and of each round's ratios; above 1 is better than MLServer."""
    row: dict[str, Any] = dict(about)
    for name, side in (
        ("coterie", [ours for ours, _ in pairs]),
        ("mlserver", [theirs for _, theirs in pairs]),
    ):
        each = [measured.summary() | {"late_ms": round(1000 * measured.late, 3)} for measured in side]
        row[name] = {key: statistics.median(one[key] for one in each) for key in each[0] if key != "failures"}
        row[name]["failures"] = dict(sum((measured.failures for measured in side), side[0].failures))
    row["throughput"] = round(statistics.median(ours.rate / theirs.rate for ours, theirs in pairs), 2)
    row["p99"] = round(
        statistics.median(theirs.quantile(0.99) / ours.quantile(0.99) for ours, theirs in pairs), 2
    )
    return row


def _print(found: Mapping[str, Any], tunings: Mapping[Transport, Mapping[str, float]]) -> None:
    console = Console()
    for transport, rates in tunings.items():
        shown = ", ".join(f"{name} {rate:.0f}/s" for name, rate in rates.items())
        console.print(f"MLServer over {transport}, of which the best is compared with: {shown}")
    for kind, rows in found.items():
        table = Table(
            *("transport", "traffic", "clients" if kind == "closed" else "offered/s"),
            *("coterie/s", "MLServer/s", "ratio", "p99 ms", "MLServer's", "ratio"),
            *("core ms a request", "MLServer's", "client's core"),
            title=f"{kind} loop",
        )
        for row in rows:
            ours, theirs = row["coterie"], row["mlserver"]
            table.add_row(
                row["transport"],
                row["traffic"],
                str(row["clients"])
                if kind == "closed"
                else f"{row['offered']:.0f}, {100 * row['load']:.0f} %",
                *(f"{ours['rate']:.0f}", f"{theirs['rate']:.0f}", f"{row['throughput']:.2f}"),
                *(f"{ours['p99_ms']:.1f}", f"{theirs['p99_ms']:.1f}", f"{row['p99']:.2f}"),
                *(f"{each['server_ms_a_request']:.2f}" for each in (ours, theirs)),
                f"{100 * max(ours['client_cpu'], theirs['client_cpu']):.0f} %",
            )
        console.print(table)


if __name__ == "__main__":
    main()
