"""What models were asked and how long it took, as Triton's statistics extension tells it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from coterie.runtime._prediction import Prediction

_EXACT = 8
"""Runs of up to so many questions are told apart; larger ones are counted with the next power of two."""


class Spent:
    """How often something was done, and how long it took together."""

    def __init__(self) -> None:
        self.count = 0
        self._seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count it once more."""
        self.count += 1
        self._seconds += max(0.0, seconds)

    def as_dict(self) -> dict[str, int]:
        """Return count and nanoseconds."""
        return {"count": self.count, "ns": round(self._seconds * 1e9)}


@dataclass
class _Model:
    """One model's counters; ``spent`` by the protocol's names."""

    last: int = 0
    questions: int = 0
    runs: int = 0
    latest_run: float | None = None
    spent: dict[str, Spent] = field(
        default_factory=lambda: {
            name: Spent()
            for name in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
        }
    )
    batches: dict[int, Spent] = field(default_factory=dict)


class Statistics:
    """Counts what the models of one version were asked, in this process and since it started.

    Args:
        models: Their names.
        version: Their version.
    """

    def __init__(self, models: Iterable[str], version: str) -> None:
        self._version = version
        self._models = {name: _Model() for name in models}

    def answered(self, model: str, prediction: Prediction, began: float) -> None:
        """Count a request that was answered, and that came at ``began`` of ``time.perf_counter``."""
        timing, now = prediction.timing, time.perf_counter()
        one = self._models[model]
        one.last = time.time_ns() // 1_000_000
        one.questions += len(prediction)
        one.spent["success"].add(now - began)
        if timing is None:
            return
        one.spent["compute_input"].add(timing.arrived - began)
        one.spent["queue"].add(timing.started - timing.arrived)
        one.spent["compute_infer"].add(timing.seconds)
        one.spent["compute_output"].add(now - timing.started - timing.seconds)
        if timing.started != one.latest_run:
            # The requests of a run are answered one right after the other.
            one.latest_run = timing.started
            one.runs += 1
            one.batches.setdefault(_about(timing.rows), Spent()).add(timing.seconds)

    def failed(self, model: str, seconds: float) -> None:
        """Count a request that was not answered, ``seconds`` after it came."""
        one = self._models[model]
        one.last = time.time_ns() // 1_000_000
        one.spent["fail"].add(seconds)

    def of(self, model: str) -> dict[str, Any]:
        """Return one model's statistics, by the names of the protocol's ``ModelStatistics``."""
        one = self._models[model]
        return {
            "name": model,
            "version": self._version,
            "last_inference": one.last,
            "inference_count": one.questions,
            "execution_count": one.runs,
            "inference_stats": {name: spent.as_dict() for name, spent in one.spent.items()},
            "batch_stats": [
                {"batch_size": size, "compute_infer": spent.as_dict()}
                for size, spent in sorted(one.batches.items())
            ],
        }

    def all(self) -> list[dict[str, Any]]:
        """Return the statistics of every model."""
        return [self.of(name) for name in self._models]


def _about(rows: int) -> int:
    # A counter for each size of each model would grow with the traffic.
    return rows if rows <= _EXACT else 1 << (rows - 1).bit_length()
