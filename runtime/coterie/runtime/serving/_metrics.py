"""Prometheus metrics with bounded labels, summed over all workers."""

from __future__ import annotations

import os
from typing import Any

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
        self._requests: Any = Counter("coterie_requests", "Requests", labelnames=labels)
        self._questions: Any = Counter(
            "coterie_questions", "Questions answered", labelnames=("model", "transport")
        )
        # Not by model: a bundle may have thousands, and each would make as many series as there are buckets.
        self._seconds: Any = Histogram(
            "coterie_request_seconds", "Time to an answer", labelnames=("transport",), buckets=_SECONDS
        )

    def observe(self, *, model: str, transport: str, outcome: str, questions: int, seconds: float) -> None:
        """Take note of one request."""
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
