"""How long an answer takes: one session a task against the router, side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from coterie.cli._demo._files import Exported

_ROUNDS = 400
_WARM_UP = 20
_MIXED = 64


@dataclass(frozen=True)
class Timing:
    """Medians of one kind of request, in milliseconds.

    Attributes:
        name: What was asked.
        sessions: With a session for each task, from its standalone file.
        router: With the router graph, in one run.
    """

    name: str
    sessions: float
    router: float

    @property
    def ratio(self) -> float:
        """How many times faster the router is."""
        return self.sessions / self.router


def measure(exported: Exported, inputs: npt.NDArray[Any]) -> list[Timing]:
    """Time both ways, taking turns, each with one thread; inputs ``[R, D]``, R >= 64."""
    names = list(exported.files)
    sessions = [_session(exported.files[name]) for name in names]
    router = _session(exported.bundle / exported.manifest.router)
    entry = exported.manifest.inputs[0].name
    drawn = np.random.default_rng(0).integers(0, len(names), _MIXED)
    cases: list[tuple[str, npt.NDArray[Any], Sequence[int], Sequence[int]]] = [
        ("1 row, 1 task", inputs[:1], [0], [0]),
        (f"1 row, all {len(names)} tasks", inputs[:1], [0] * len(names), range(len(names))),
        (f"{_MIXED} rows, each of some task", inputs[:_MIXED], range(_MIXED), drawn.tolist()),
    ]
    return [
        Timing(name, *_medians(*_ways(sessions, router, entry, rows, row, task)))
        for name, rows, row, task in cases
    ]


def _ways(  # noqa: PLR0917 - a case and what answers it
    sessions: Sequence[ort.InferenceSession],
    router: ort.InferenceSession,
    entry: str,
    inputs: npt.NDArray[Any],
    row: Sequence[int],
    task: Sequence[int],
) -> tuple[Callable[[], object], Callable[[], object]]:
    rows, tasks = np.array(row, dtype=np.int64), np.array(task, dtype=np.int64)

    def one_by_one() -> object:
        # A server would have to sort a mixed batch as well.
        answers = []
        for number in np.unique(tasks):
            asked = {entry: inputs[rows[tasks == number]]}
            answers.append(sessions[number].run(["scores"], asked))
        return answers

    def at_once() -> object:
        return router.run(["scores"], {entry: inputs, "row": rows, "task": tasks})

    return one_by_one, at_once


def _medians(*ways: Callable[[], object]) -> tuple[float, float]:
    times: list[list[float]] = [[] for _ in ways]
    for turn in range(_WARM_UP + _ROUNDS):
        for way, kept in zip(ways, times, strict=True):
            began = time.perf_counter()
            way()
            if turn >= _WARM_UP:
                kept.append(1000 * (time.perf_counter() - began))
    first, second = (statistics.median(kept) for kept in times)
    return first, second


def _session(file: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
