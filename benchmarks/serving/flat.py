"""Memory of a server over a million requests: single rows of 20 tasks, over HTTP and gRPC. Linux only.

    python -m benchmarks.serving.flat                         # about 15 minutes
    python -m benchmarks.serving.flat --requests 50000

The memory is the proportional set size (PSS) of all the server's processes. How much of it a request leaves
behind is the slope of a line through the last three quarters of the samples.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import uvloop
from rich.console import Console
from rich.progress import Progress

from benchmarks.common import write_result
from benchmarks.serving.cores import pss
from benchmarks.serving.engine import make_bundle
from benchmarks.serving.questions import Questions, Transport
from coterie.cli._bench._clients import connect
from coterie.runtime import Engine, load
from coterie.runtime.serving import Addresses, running_server

MEBI = 1024 * 1024
MIX: tuple[Transport, ...] = ("binary", "binary", "json", "grpc")
"""What each of four clients asks by."""
SAMPLES = 200


async def ask(
    addresses: Addresses, questions: Questions, requests: int, clients: int, warmup: int
) -> list[tuple[int, int]]:
    """Ask so many requests; return after how many of them there was how much memory."""
    asked, failures = 0, 0
    samples: list[tuple[int, int]] = []
    step = max(1, requests // SAMPLES)
    whole = requests + warmup

    async def one(number: int) -> None:
        nonlocal asked, failures
        transport = MIX[number % len(MIX)]
        client = await connect(transport, str(addresses.grpc) if transport == "grpc" else addresses.http)
        stream = itertools.cycle(questions.stream(transport, "uniform", 10_000, seed=number))
        while asked < whole:
            asked += 1
            mine = asked
            failures += not (await client.ask(next(stream))).ok
            if mine >= warmup and (mine - warmup) % step == 0:
                samples.append((mine - warmup, await asyncio.to_thread(pss, addresses.pid)))
                progress.update(bar, completed=mine)
        await client.close()

    with Progress() as progress:
        bar = progress.add_task("requests", total=whole)
        await asyncio.gather(*map(one, range(clients)))
    if failures:
        raise SystemExit(f"{failures} of {whole} requests failed")
    return sorted(samples)


def summary(samples: list[tuple[int, int]]) -> dict[str, Any]:
    """Return what the samples say."""
    late = np.array(samples[len(samples) // 4 :], dtype=float)
    slope, _ = np.polyfit(late[:, 0], late[:, 1], 1)
    return {
        "first_mib": round(samples[0][1] / MEBI, 1),
        "last_mib": round(samples[-1][1] / MEBI, 1),
        "most_mib": round(max(size for _, size in samples) / MEBI, 1),
        "bytes_a_request": round(float(slope), 2),
        "mib_a_million_requests": round(float(slope) * 1e6 / MEBI, 1),
    }


def main() -> None:
    """Ask, sample, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--warmup", type=int, default=2000, help="requests before the first sample")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--bundle", type=Path, help="of one input of numbers; nothing is written then")
    chosen = parser.parse_args()
    uvloop.install()
    with TemporaryDirectory() as scratch:
        engine: Engine = load(chosen.bundle or make_bundle(Path(scratch) / "bundle"), threads=1)
        spec = engine.bundle.manifest.inputs[0]
        questions = Questions(
            [task.name for task in engine.tasks], spec.name, [dim or 1 for dim in spec.shape[1:]]
        )
        with running_server(engine.bundle.path, threads=1) as addresses:
            began = time.perf_counter()
            samples = asyncio.run(ask(addresses, questions, chosen.requests, chosen.clients, chosen.warmup))
            seconds = time.perf_counter() - began
    found = summary(samples)
    console = Console()
    console.print(f"{chosen.requests} requests in {seconds:.0f} s: {chosen.requests / seconds:.0f} a second")
    console.print(
        f"PSS {found['first_mib']} MiB at first, {found['last_mib']} at last, {found['most_mib']} at most: "
        f"{found['mib_a_million_requests']} MiB in a million requests"
    )
    if chosen.bundle is None:
        result = {"requests": chosen.requests, "clients": chosen.clients, "seconds": round(seconds), **found}
        print(write_result("serving_flat", result | {"samples": samples}))


if __name__ == "__main__":
    main()
