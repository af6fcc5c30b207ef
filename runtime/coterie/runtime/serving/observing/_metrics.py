"""What a worker counts for Prometheus, with bounded labels.

Models are the bundle's own, ``other`` past a bound, or ``unknown``: what a client asks for never makes a new
series.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from coterie.runtime.plan import SharingPlan
from coterie.runtime.serving.observing._calls import Done
from coterie.runtime.serving.observing._tally import Family, Tally, little_by_little
from coterie.runtime.serving.observing._usage import OTHER, Usage
from coterie.runtime.tasks import ROUTER

_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

REQUESTS = Family("coterie_requests", "Requests", ("model", "transport", "outcome"))
QUESTIONS = Family("coterie_questions", "Questions answered", ("model", "transport"))
MET_ROWS = Family("coterie_met_rows", "Questions of the runs that answered a model's requests", ("model",))
SECONDS = Family("coterie_request_seconds", "Time to an answer", ("transport",), _SECONDS)
QUEUE = Family("coterie_queue_seconds", "Time of an answered request in the queue", ("model",), _SECONDS)
COMPUTE = Family("coterie_compute_seconds", "Time of the run that answered a request", ("model",), _SECONDS)
SHADOW = Family("coterie_shadow", "Answers of a shadow, compared", ("version", "outcome"))
SWAPS = Family("coterie_swaps", "Versions loaded", ("outcome",))
VERSION_REQUESTS = Family("coterie_version_requests", "Requests of a version", ("version", "outcome"))
RUN = Family("coterie_run_seconds", "Time of a run of the engine", ("version",), _SECONDS)
BATCH_REQUESTS = Family("coterie_batch_requests", "Requests of a run", ("version",), _ROWS)
BATCH_ROWS = Family("coterie_batch_rows", "Questions of a run", ("version",), _ROWS)
BATCH_INPUTS = Family("coterie_batch_inputs", "Distinct inputs of a run", ("version",), _ROWS)
TASK_ROWS = Family("coterie_task_rows", "Questions of a task, however asked", ("version", "task"))
BLOCK_RUNS = Family("coterie_block_runs", "Runs that needed a block", ("version", "block"))
BLOCK_ROWS = Family("coterie_block_rows", "Questions that needed a block", ("version", "block"))

FAMILIES = (
    *(REQUESTS, QUESTIONS, MET_ROWS, SECONDS, QUEUE, COMPUTE, SHADOW, SWAPS, VERSION_REQUESTS),
    *(RUN, BATCH_REQUESTS, BATCH_ROWS, BATCH_INPUTS, TASK_ROWS, BLOCK_RUNS, BLOCK_ROWS),
)
_ALWAYS = ("unknown", ROUTER)
_OF_A_VERSION = [family for family in FAMILIES if family.labels[:1] == ("version",)]


class Metrics:
    """Counts the requests of one worker, and the runs of each version's batcher.

    Args:
        tasks: Tasks, and blocks, that have counters of their own: the first of the bundle, or of all bundles
            if there come to be several. The others are counted together as ``other``.
        histograms: Of these, tasks that have histograms of their own.
    """

    def __init__(self, *, tasks: int = 1000, histograms: int = 100) -> None:
        self._tally = Tally()
        self._counted, self._measured = tasks, histograms
        self._names = {name: (name, name) for name in _ALWAYS}
        """By model what it is called in counters, and in histograms."""
        self._versions: dict[str, _Runs] = {}

    def version(self, number: str, plan: SharingPlan) -> _Runs:
        """Return what observes the batcher of a version, of that plan."""
        for name in plan.tasks:
            known = len(self._names) - len(_ALWAYS)
            if name not in self._names and known < self._counted:
                self._names[name] = (name, name if known < self._measured else OTHER)
        self._versions[number] = _Runs(self._tally, number, Usage(plan, most=self._counted))
        return self._versions[number]

    def observe(self, done: Done) -> None:
        """Take note of one request."""
        counted, measured = self._names.get(done.model, (OTHER, OTHER))
        tally = self._tally
        with tally.lock:
            tally.count(VERSION_REQUESTS, done.version, done.outcome)
            tally.count(REQUESTS, counted, done.transport, done.outcome)
            if done.outcome != "ok":
                return
            tally.count(QUESTIONS, counted, done.transport, amount=done.questions)
            tally.observe(SECONDS, done.seconds, done.transport)
            if done.timing is not None:
                tally.count(MET_ROWS, counted, amount=done.timing.rows)
                tally.observe(QUEUE, done.timing.started - done.timing.arrived, measured)
                tally.observe(COMPUTE, done.timing.seconds, measured)

    def shadowed(self, *, version: str, outcome: str) -> None:
        """Take note of how a shadow's answer compares with the one that was given."""
        with self._tally.lock:
            self._tally.count(SHADOW, version, outcome)

    def swapped(self, *, outcome: str) -> None:
        """Take note of a version that was loaded, or could not be."""
        with self._tally.lock:
            self._tally.count(SWAPS, outcome)

    def unloaded(self, version: str) -> None:
        """Forget what was counted of a version alone: a server may see many."""
        self._versions.pop(version, None)
        self._tally.forget(_OF_A_VERSION, version)

    def parts(self) -> Iterator[dict[str, list[Any]]]:
        """Yield everything that was counted, a little at a time, for ``Sums.add``; JSON can have it."""
        yield from self._tally.parts()
        for number, runs in tuple(self._versions.items()):
            tasks, blocks = runs.usage.tasks(), runs.usage.blocks()
            used: list[Any] = [[[TASK_ROWS.name, number, task], rows] for task, rows in tasks.items()]
            for block, (count, rows) in blocks.items():
                used.append([[BLOCK_RUNS.name, number, block], count])
                used.append([[BLOCK_ROWS.name, number, block], rows])
            for counters in little_by_little(used):
                yield {"counters": counters, "histograms": []}


class _Runs:
    """Counts the runs of one version; called from the threads that run the engine."""

    def __init__(self, tally: Tally, version: str, usage: Usage) -> None:
        self._tally = tally
        self._version = version
        self.usage = usage

    def batch(self, *, requests: int, task: npt.NDArray[np.int64], inputs: int, seconds: float) -> None:
        """Take note of one run of the engine."""
        self.usage.ran(task)
        tally, version = self._tally, self._version
        with tally.lock:
            tally.observe(BATCH_REQUESTS, requests, version)
            tally.observe(BATCH_ROWS, len(task), version)
            tally.observe(BATCH_INPUTS, inputs, version)
            tally.observe(RUN, seconds, version)
