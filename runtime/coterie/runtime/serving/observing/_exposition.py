"""What all workers counted, in the words of Prometheus."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from coterie.runtime._resident import resident_bytes
from coterie.runtime.serving.observing._metrics import FAMILIES
from coterie.runtime.serving.observing._tally import Family, Sums

CONTENT_TYPE = CONTENT_TYPE_LATEST


def exposition(told: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the metrics of a server, from what each of its workers told (``read_told``)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(told))
    return generate_latest(registry)


class _Collected:
    """A collector of the Prometheus client."""

    def __init__(self, told: Sequence[Mapping[str, Any]]) -> None:
        self._sums = Sums()
        for each in told:
            for part in each["metrics"]:
                self._sums.add(part)
        self._alive = [each for each in told if _is_alive(each["pid"])]

    def collect(self) -> Iterable[Metric]:
        """Return every family; one with nothing counted yet is there with its description."""
        for family in FAMILIES:
            yield _histogram(family, self._sums) if family.bounds else _counter(family, self._sums)
        yield from self._gauges()

    def _gauges(self) -> Iterator[Metric]:
        memory = GaugeMetricFamily(
            "coterie_resident_bytes",
            "Memory of a worker, of shared pages its part (PSS)",
            labels=["worker"],
        )
        waiting = GaugeMetricFamily("coterie_waiting_requests", "Requests that wait or run")
        workers = GaugeMetricFamily("coterie_workers", "Workers that answer", value=len(self._alive))
        bundles = GaugeMetricFamily(
            "coterie_bundle_info",
            "Workers that hold a version, by what they do with it: served, canary, shadow or kept",
            labels=["version", "bundle", "state"],
        )
        states: Counter[tuple[str, ...]] = Counter()
        for each in self._alive:
            size = resident_bytes(each["pid"])
            if size is not None:
                memory.add_metric([str(each["pid"])], size)
            states.update(tuple(held) for held in each["versions"])
        for labels, count in sorted(states.items()):
            bundles.add_metric(list(labels), count)
        waiting.add_metric([], sum(each["waiting"] for each in self._alive))
        yield from (memory, waiting, workers, bundles)


def _counter(family: Family, sums: Sums) -> Metric:
    metric = CounterMetricFamily(family.name, family.about, labels=family.labels)
    for key, value in sorted(sums.counters.items()):
        if key[0] == family.name:
            metric.add_metric(key[1:], value)
    return metric


def _histogram(family: Family, sums: Sums) -> Metric:
    metric = HistogramMetricFamily(family.name, family.about, labels=family.labels)
    names = [*(str(float(bound)) for bound in family.bounds), "+Inf"]
    for key, values in sorted(sums.histograms.items()):
        if key[0] == family.name:
            buckets = list(zip(names, accumulate(values[:-1]), strict=True))
            metric.add_metric(key[1:], buckets=buckets, sum_value=values[-1])
    return metric


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
