"""What models were asked and how long it took, as Triton's statistics extension tells it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from coterie.runtime.engine import Prediction
from coterie.runtime.serving.observing._tally import little_by_little

_EXACT = 8
"""Runs of up to so many questions are told apart; larger ones are counted with the next power of two."""

Told = Mapping[str, Mapping[str, Any]]
"""What one worker counted, by model, as JSON has it."""


class Spent:
    """How often something was done, and how long it took together."""

    def __init__(self, count: int = 0, seconds: float = 0.0) -> None:
        self.count = count
        self.seconds = seconds

    def add(self, seconds: float) -> None:
        """Count it once more."""
        self.count += 1
        if seconds > 0:
            self.seconds += seconds

    def plus(self, count: int, seconds: float) -> None:
        """Count it so many times more, so many seconds together."""
        self.count += count
        self.seconds += seconds

    def as_dict(self) -> dict[str, int]:
        """Return count and nanoseconds."""
        return {"count": self.count, "ns": round(self.seconds * 1e9)}


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

    def told(self) -> dict[str, Any]:
        """Return the counters, as JSON can have them."""
        return {
            "last": self.last,
            "questions": self.questions,
            "runs": self.runs,
            "spent": {name: [each.count, each.seconds] for name, each in self.spent.items()},
            "batches": [[size, each.count, each.seconds] for size, each in self.batches.items()],
        }

    def add(self, told: Mapping[str, Any]) -> None:
        """Add what another counted of the same model."""
        self.last = max(self.last, told["last"])
        self.questions += told["questions"]
        self.runs += told["runs"]
        for name, (count, seconds) in told["spent"].items():
            self.spent[name].plus(count, seconds)
        for size, count, seconds in told["batches"]:
            self.batches.setdefault(size, Spent()).plus(count, seconds)


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

    def parts(self) -> Iterator[dict[str, dict[str, Any]]]:
        """Yield the counters of the models that were asked, a few at a time, as JSON can have them."""
        asked = [name for name, one in self._models.items() if one.last]
        for names in little_by_little(asked):
            yield {name: self._models[name].told() for name in names}

    def of(self, model: str, others: Iterable[Told] = ()) -> dict[str, Any]:
        """Return one model's statistics, by the names of the protocol's ``ModelStatistics``.

        Args:
            model: Its name.
            others: What other workers told of the same version, to be added.
        """
        one = _Model()
        for told in (self._models[model].told(), *(each[model] for each in others if model in each)):
            one.add(told)
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

    def all(self, others: Iterable[Told] = ()) -> list[dict[str, Any]]:
        """Return the statistics of every model; ``others`` as above."""
        others = list(others)
        return [self.of(name, others) for name in self._models]


def _about(rows: int) -> int:
    # A counter for each size of each model would grow with the traffic.
    return rows if rows <= _EXACT else 1 << (rows - 1).bit_length()
