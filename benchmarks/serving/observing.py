"""What it costs to observe: counting, ids, log lines and spans, in microseconds a request.

python -m benchmarks.serving.observing
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from rich.console import Console
from rich.table import Table

from benchmarks.common import side_by_side, write_result
from coterie.runtime.engine._prediction import Timing
from coterie.runtime.plan import BlockPlan, SharingPlan, StagePlan
from coterie.runtime.serving.observing._board import Board, line_of, read_told
from coterie.runtime.serving.observing._calls import Calls, Done
from coterie.runtime.serving.observing._exposition import exposition
from coterie.runtime.serving.observing._logs import AccessLog
from coterie.runtime.serving.observing._metrics import Metrics
from coterie.runtime.serving.observing._statistics import Statistics
from coterie.runtime.serving.observing._tracing import Tracing

REQUESTS = 2000
ROWS = 64
EXPERTS, USED, CLUSTERS = 20, 5, 5
HEADERS = (("host", "x"), ("content-type", "application/json"), ("content-length", "300"), ("accept", "*/*"))


class Nowhere(SpanExporter):
    """Takes spans and does nothing with them: sending them is a thread's work, and of a size of its own."""

    def export(self, _: Any) -> SpanExportResult:
        """Say that they were sent."""
        return SpanExportResult.SUCCESS


def plan_of(tasks: int) -> SharingPlan:
    """Return a plan of so many tasks over shared experts, clusters and heads of their own."""
    generator = np.random.default_rng(0)
    experts = tuple(
        tuple(sorted(generator.choice(EXPERTS, USED, replace=False).tolist())) for _ in range(tasks)
    )
    stages = (
        _stage("experts", "gated", EXPERTS, experts),
        _stage("groups", "cluster", CLUSTERS, tuple((task % CLUSTERS,) for task in range(tasks))),
        _stage("heads", "head", tasks, tuple((task,) for task in range(tasks))),
    )
    return SharingPlan(tasks=tuple(f"task-{number}" for number in range(tasks)), stages=stages)


def _stage(name: str, kind: Any, blocks: int, uses: tuple[tuple[int, ...], ...]) -> StagePlan:
    return StagePlan(
        name=name,
        kind=kind,
        trained_blocks=blocks,
        blocks=tuple(BlockPlan(name=f"{name}/{at}", source=at, parameters=1) for at in range(blocks)),
        uses=uses,
        weights=tuple(tuple(1.0 / len(used) for _ in used) for used in uses),
    )


def requests_of(plan: SharingPlan) -> list[Done]:
    """Return requests to tasks at random, each a run of its own for the spans."""
    tasks = np.random.default_rng(1).integers(len(plan.tasks), size=REQUESTS)
    now = time.perf_counter()
    return [
        Done(plan.tasks[task], "1", "http", "ok", 1, 0.002, Timing(now, now + at * 1e-6, 0.001, 16))
        for at, task in enumerate(tasks)
    ]


def calling(requests: list[Done], *sinks: Any) -> Callable[[], None]:
    """Return what makes and ends a call for each request."""
    calls = Calls(sinks)

    def run() -> None:
        for done in requests:
            with calls.call("http", "POST /v2/models/x/infer", HEADERS) as call:
                call.status, call.done = "200", done

    return run


def costs(plan: SharingPlan, rounds: int) -> dict[str, float]:
    """Return microseconds a request, by what is done for it."""
    requests = requests_of(plan)
    metrics = Metrics()
    runs = metrics.version("1", plan)
    batches = np.random.default_rng(2).integers(len(plan.tasks), size=(REQUESTS, ROWS))
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere(), max_queue_size=1 << 20))

    def count() -> None:
        for done in requests:
            metrics.observe(done)

    def count_runs() -> None:
        for task in batches:
            runs.batch(requests=ROWS, task=task, inputs=ROWS, seconds=0.001)

    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123
        seconds = side_by_side(
            {
                "count a request": count,
                f"count a run of {ROWS} questions": count_runs,
                "id and context": calling(requests),
                "id, context and a JSON line": calling(requests, AccessLog(nowhere, as_json=True)),
                "id, context and a line of text": calling(requests, AccessLog(nowhere)),
                "id, context and spans": calling(requests, Tracing(provider)),
            },
            rounds=rounds,
        )
    provider.shutdown()
    return {name: 1e6 * value / REQUESTS for name, value in seconds.items()}


def telling(plan: SharingPlan, rounds: int) -> dict[str, float]:
    """Return what a worker does once a second, and at a scrape: milliseconds, and kilobytes."""
    metrics, asked = Metrics(), Statistics(plan.tasks, "1")
    runs = metrics.version("1", plan)
    for name in plan.tasks:
        asked.failed(name, 0.002)
        for transport in ("http", "grpc"):
            metrics.observe(Done(name, "1", transport, "ok", 1, 0.002, Timing(0.0, 0.001, 0.001, 16)))
    runs.batch(requests=1, task=np.arange(len(plan.tasks)), inputs=1, seconds=0.001)

    def parts(number: int = 0) -> Iterator[dict[str, Any]]:
        """Yield what ``Reports.parts`` does."""
        yield {"pid": os.getpid(), "waiting": number, "versions": []}
        yield from ({"metrics": part} for part in metrics.parts())
        yield from ({"statistics": {"1": models}} for models in asked.parts())

    def lines(number: int = 0) -> list[bytes]:
        return [line_of(part) for part in parts(number)]

    def told() -> dict[str, Any]:
        return read_told(b"\n".join(lines()))

    numbers = iter(range(1 << 30))
    with TemporaryDirectory() as folder:
        board = Board(Path(folder))
        seconds = side_by_side(
            {
                "tell the other workers, ms": lambda: board.write(b"\n".join(lines(next(numbers)))),
                "a scrape of two workers, ms": lambda: exposition([told(), told()]),
            },
            rounds=rounds,
        )
    sizes = {
        "the longest part of telling, ms": 1e3 * statistics.median(_longest(parts()) for _ in range(rounds)),
        "what a worker tells, KB": sum(map(len, lines())) / 1e3,
        "a scrape, KB": len(exposition([told()])) / 1e3,
    }
    return {name: 1e3 * value for name, value in seconds.items()} | sizes


def _longest(parts: Iterator[dict[str, Any]]) -> float:
    """Return the seconds of the part that takes longest to make and to write."""
    seconds, began = [], time.perf_counter()
    for part in parts:
        line_of(part)
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return max(seconds)


CLIENT = """
import sys, time
from prometheus_client import Counter, Histogram
bounds = (.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1., 2.5, 10.)
tasks, requests, rounds = map(int, sys.argv[1:])
version = Counter("v", "v", ("version", "outcome"))
asked = Counter("r", "r", ("model", "transport", "outcome"))
rows = Counter("q", "q", ("model", "transport"))
met = Counter("m", "m", ("model",))
seconds = Histogram("s", "s", ("transport",), buckets=bounds)
queue = Histogram("u", "u", ("model",), buckets=bounds)
compute = Histogram("c", "c", ("model",), buckets=bounds)
names = [f"task-{number % tasks}" for number in range(requests)]
times = []
for _ in range(rounds + 2):
    began = time.perf_counter()
    for name in names:
        version.labels("1", "ok").inc()
        asked.labels(name, "http", "ok").inc()
        rows.labels(name, "http").inc()
        seconds.labels("http").observe(.002)
        met.labels(name).inc(16)
        queue.labels(name).observe(.001)
        compute.labels(name).observe(.001)
    times.append(time.perf_counter() - began)
print(sorted(times[2:])[rounds // 2])
"""


def of_the_client(tasks: int, rounds: int) -> float:
    """Return microseconds a request of the same counts in the Prometheus client's multiprocess mode."""
    with TemporaryDirectory() as folder:
        environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": folder}
        words = [sys.executable, "-c", CLIENT, str(tasks), str(REQUESTS), str(rounds)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return 1e6 * float(done.stdout) / REQUESTS


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    results: dict[str, Any] = {}
    for tasks in (20, 1000):
        plan = plan_of(tasks)
        each = costs(plan, rounds)
        each["count a request with the Prometheus client, several processes"] = of_the_client(tasks, rounds)
        results[f"{tasks} tasks"] = {
            "microseconds": {name: round(value, 2) for name, value in each.items()},
            "now and then": {name: round(value, 1) for name, value in telling(plan, rounds).items()},
        }
    for part in ("microseconds", "now and then"):
        table = Table(part, *results)
        for name in results["20 tasks"][part]:
            table.add_row(name, *(f"{results[tasks][part][name]:.1f}" for tasks in results))
        Console().print(table)
    write_result("serving_observing", {"requests": REQUESTS, "cases": results})


if __name__ == "__main__":
    main()
