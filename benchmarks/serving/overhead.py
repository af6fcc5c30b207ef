"""What a request costs beside the engine: processor time of a server under load, less that of its engine.

    python -m benchmarks.serving.overhead            # about a minute
    python -m benchmarks.serving.overhead --seconds 2

20 tasks, single rows, one worker on one core, closed loop, the client on another core. Processor time and not
the clock: what else the machine does hardly counts. The engine's share is that of the batches that the server
made, of their mean size, run again in this process.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import time
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.common import write_result
from benchmarks.serving.engine import make_bundle
from benchmarks.serving.questions import TRANSPORTS, Questions, Transport
from coterie.cli._bench._clients import connect
from coterie.cli._bench._loops import Measured, closed_loop
from coterie.runtime import Engine, load
from coterie.runtime.serving import Addresses, running_server

CLIENTS = 32
PROMISED_MS = 0.6


class Spent(NamedTuple):
    """Totals of a server, of which two give what happened between them."""

    cpu: float
    """Seconds of processor time of its workers."""
    runs: float
    """Runs of the engine."""
    rows: float
    """Questions of all runs."""


def spent(at: Addresses) -> Spent:
    """Read the totals of a server."""
    with urllib.request.urlopen(f"http://{at.http}/metrics", timeout=10) as response:
        text = response.read().decode()
    totals = [
        sum(map(float, re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)))
        for name in ("coterie_batch_rows_count", "coterie_batch_rows_sum")
    ]
    times = [process.cpu_times() for process in psutil.Process(at.pid).children(recursive=True)]
    return Spent(sum(each.user + each.system for each in times), *totals)


async def ask(at: Addresses, transport: Transport, requests: list[bytes], seconds: float) -> Measured:
    """Ask a server in a closed loop."""
    address = at.grpc if transport == "grpc" else at.http
    assert address is not None  # noqa: S101
    clients = [await connect(transport, address) for _ in range(CLIENTS)]
    try:
        return await closed_loop(clients, itertools.cycle(requests), seconds)
    finally:
        for client in clients:
            await client.close()


def engine_cpu(engine: Engine, questions: Questions, rows: int, rounds: int = 200) -> float:
    """Return the processor seconds of one run over so many mixed single-row questions."""
    count = len(questions.tasks)
    inputs = questions.rows.swapaxes(0, 1).reshape(-1, *questions.rows.shape[2:])[:rows]
    task = [questions.tasks[row % count] for row in range(rows)]
    asked = engine.prepare_many(inputs, None, task)
    for _ in range(20):
        engine.run(asked)
    began = time.process_time()
    for _ in range(rounds):
        engine.run(asked)
    return (time.process_time() - began) / rounds


def measure(
    at: Addresses, transport: Transport, questions: Questions, engine: Engine, seconds: float
) -> dict[str, Any]:
    """Measure one transport."""
    requests = questions.stream(transport, "uniform", 4096, seed=1)
    uvloop.run(ask(at, transport, requests, min(1.0, seconds)))
    before = spent(at)
    measured = uvloop.run(ask(at, transport, requests, seconds))
    after = spent(at)
    count = len(measured.latencies)
    runs, rows = (
        after.runs - before.runs,
        max(1, round((after.rows - before.rows) / (after.runs - before.runs))),
    )
    total = (after.cpu - before.cpu) / count
    engine_share = engine_cpu(engine, questions, rows) * runs / count
    return {
        **measured.summary(),
        "rows_a_run": rows,
        "server_cpu_ms": round(1000 * total, 3),
        "engine_cpu_ms": round(1000 * engine_share, 3),
        "overhead_ms": round(1000 * (total - engine_share), 3),
    }


def main() -> None:
    """Measure all transports; print a table, and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--no-write", action="store_true", help="print only")
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder) / "bundle")
        engine = load(bundle, threads=1)
        tensor = engine.bundle.manifest.inputs[0]
        questions = Questions(
            [task.name for task in engine.tasks], tensor.name, [dim or 1 for dim in tensor.shape[1:]]
        )
        with running_server(bundle, threads=1) as at:
            for process in psutil.Process(at.pid).children(recursive=True):
                for thread in process.threads():
                    os.sched_setaffinity(thread.id, {cores[0]})
            os.sched_setaffinity(0, {cores[-1]})
            found = {
                transport: measure(at, transport, questions, engine, given.seconds)
                for transport in TRANSPORTS
            }
    table = Table(
        title=f"milliseconds of one core a request; promised: at most {PROMISED_MS} beside the engine"
    )
    for column in ("transport", "requests/s", "rows a run", "server", "engine", "overhead"):
        table.add_column(column, justify="left" if column == "transport" else "right")
    for transport, each in found.items():
        table.add_row(
            transport,
            *(
                str(each[key])
                for key in ("rate", "rows_a_run", "server_cpu_ms", "engine_cpu_ms", "overhead_ms")
            ),
        )
    Console().print(table)
    if not given.no_write:
        write_result(
            "serving_overhead", {"clients": CLIENTS, "promised_ms": PROMISED_MS, "transports": found}
        )


if __name__ == "__main__":
    main()
