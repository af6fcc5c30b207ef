"""Prometheus metrics with bounded labels, summed over all workers."""

from __future__ import annotations

import os
from typing import Any

_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """Counts requests and questions by model, transport and outcome.

    Models are the bundle's own or ``unknown``: what a client asks for never makes a new series.
    """

    def __init__(self) -> None:
        # Whether it counts across processes is decided when the library is imported, from a variable that a
        # worker has and the process that starts it has not.
        from prometheus_client import Counter, Histogram

        labels = ("model", "transport", "outcome")
        self._versions: Any = Counter(
            "coterie_version_requests", "Requests of a version", labelnames=("version", "outcome")
        )
        self._shadowed: Any = Counter(
            "coterie_shadow", "Answers of a shadow, compared", labelnames=("version", "outcome")
        )
        self._swaps: Any = Counter("coterie_swaps", "Versions loaded", labelnames=("outcome",))
        self._requests: Any = Counter("coterie_requests", "Requests", labelnames=labels)
        self._questions: Any = Counter(
            "coterie_questions", "Questions answered", labelnames=("model", "transport")
        )
        # Not by model: a bundle may have thousands, and each would make as many series as there are buckets.
        self._seconds: Any = Histogram(
            "coterie_request_seconds", "Time to an answer", labelnames=("transport",), buckets=_SECONDS
        )

        self._rows: Any = Histogram("coterie_batch_rows", "Questions of a run", buckets=_ROWS)
        self._inputs: Any = Histogram("coterie_batch_inputs", "Distinct inputs of a run", buckets=_ROWS)
        self._requests_a_run: Any = Histogram("coterie_batch_requests", "Requests of a run", buckets=_ROWS)
        self._run: Any = Histogram("coterie_run_seconds", "Time of a run of the engine", buckets=_SECONDS)
        self._queue: Any = Histogram("coterie_queue_seconds", "Time in the queue", buckets=_SECONDS)

    def batch(self, *, requests: int, rows: int, inputs: int, seconds: float) -> None:
        """Take note of one run of the engine."""
        self._requests_a_run.observe(requests)
        self._rows.observe(rows)
        self._inputs.observe(inputs)
        self._run.observe(seconds)

    def waited(self, seconds: float) -> None:
        """Take note of how long a request stood in the queue."""
        self._queue.observe(seconds)

    def shadowed(self, *, version: str, outcome: str) -> None:
        """Take note of how a shadow's answer compares with the one that was given."""
        self._shadowed.labels(version=version, outcome=outcome).inc()

    def swapped(self, *, outcome: str) -> None:
        """Take note of a version that was loaded, or could not be."""
        self._swaps.labels(outcome=outcome).inc()

    def observe(
        self, *, model: str, version: str, transport: str, outcome: str, questions: int, seconds: float
    ) -> None:
        """Take note of one request."""
        self._versions.labels(version=version, outcome=outcome).inc()
        self._requests.labels(model=model, transport=transport, outcome=outcome).inc()
        if outcome == "ok":
            self._questions.labels(model=model, transport=transport).inc(questions)
            self._seconds.labels(transport=transport).observe(seconds)


def exposition() -> tuple[bytes, str]:
    """Return the metrics of all workers and their content type."""
    import prometheus_client as prometheus
    from prometheus_client import multiprocess

    registry: Any = prometheus.REGISTRY
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = prometheus.CollectorRegistry()
        sum_workers: Any = multiprocess.MultiProcessCollector
        sum_workers(registry)
    return prometheus.generate_latest(registry), prometheus.CONTENT_TYPE_LATEST
