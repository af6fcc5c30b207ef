"""The engine against a session for each task, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from coterie.cli._bench._questions import Inputs, Questions
from coterie.cli._bench._timing import Times, side_by_side
from coterie.runtime import Bundle, Engine
from coterie.runtime.engine._asked import Asked

ENGINE, ONE_BY_ONE, GROUPED = "coterie", "a session a task", "a session a task, grouped"

_BATCHES = (1, 4, 16, 64, 256)
_SOME_TASKS = (2, 5, 20, 100)
_MIXED = 64


@dataclass(frozen=True)
class Case:
    """One kind of request, and what each way took for it.

    Attributes:
        name: What is asked.
        group: ``batch``: so many rows, of a task drawn for each; ``tasks``: 64 rows over so many tasks;
            ``fan-out``: one row asked of so many tasks.
        questions: B.
        inputs: Distinct rows, R.
        tasks: Tasks that are asked.
        times: What each way took.
    """

    name: str
    group: str
    questions: int
    inputs: int
    tasks: int
    times: dict[str, Times]

    def ratio(self, other: str) -> float | None:
        """How many times faster the engine is; None if the other way was not timed."""
        if other not in self.times:
            return None
        return self.times[other].median_ms / self.times[ENGINE].median_ms

    def per_second(self, way: str) -> float:
        """Questions a second, one request after the other."""
        return 1000 * self.questions / self.times[way].median_ms

    def as_json(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        ratios = {way: ratio for way in (ONE_BY_ONE, GROUPED) if (ratio := self.ratio(way)) is not None}
        return {
            **asdict(self),
            "questions_per_second": {way: round(self.per_second(way), 1) for way in self.times},
            "times_faster_than": {way: round(ratio, 3) for way, ratio in ratios.items()},
        }


class SessionATask:
    """What one would do without coterie: an ordinary session for each task, with weights of its own.

    Args:
        bundle: Whose task graphs they are.
        tasks: So many of the tasks, the first ones.
        threads: Threads of a run.
    """

    def __init__(self, bundle: Bundle, tasks: int, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        self._sessions = [
            ort.InferenceSession(str(bundle.graph(entry.graph)), options, ["CPUExecutionProvider"])
            for entry in bundle.manifest.tasks[:tasks]
        ]
        self._reads = [{argument.name for argument in each.get_inputs()} for each in self._sessions]

    def one_by_one(self, asked: Asked) -> None:
        """Ask each question by itself, as a server does that cannot batch over models."""
        for row, task in zip(asked.row.tolist(), asked.task.tolist(), strict=True):
            self._ask(task, {name: values[row : row + 1] for name, values in asked.inputs.items()})

    def grouped(self, asked: Asked) -> None:
        """Ask each task all its questions at once: the best that a session a task can do."""
        for task in np.unique(asked.task).tolist():
            own = asked.row[asked.task == task]
            self._ask(task, {name: values[own] for name, values in asked.inputs.items()})

    def _ask(self, task: int, inputs: Inputs) -> None:
        reads = self._reads[task]
        self._sessions[task].run(None, {name: values for name, values in inputs.items() if name in reads})


def measure(
    engine: Engine, questions: Questions, *, tasks: int, seconds: float, threads: int, quick: bool
) -> Iterator[Case]:
    """Time every case, and yield it when it is done.

    Args:
        engine: Of the bundle.
        questions: Rows to ask about.
        tasks: Tasks that are asked: for each of them a session is held beside the engine.
        seconds: For each case.
        threads: Threads of a run, of both.
        quick: Leave out every other size.
    """
    sessions = SessionATask(engine.bundle, tasks, threads)
    generator = np.random.default_rng(0)
    step = 2 if quick else 1

    def mixed(rows: int, count: int) -> Asked:
        # All tasks about equally often, in any order.
        task = generator.permutation(np.arange(rows) % count)
        return Asked(questions.some(rows), np.arange(rows), task)

    for rows in _BATCHES[::step]:
        name = "1 question" if rows == 1 else f"{rows} mixed questions"
        yield _case(engine, sessions, name, "batch", mixed(rows, tasks), seconds)
    for count in _up_to(tasks, step):
        name = f"{_MIXED} questions over {count} tasks"
        yield _case(engine, sessions, name, "tasks", mixed(_MIXED, count), seconds)
    for count in _up_to(tasks, step):
        asked = Asked(questions.some(1), np.zeros(count, dtype=np.int64), np.arange(count))
        yield _case(engine, sessions, f"1 input asked of {count} tasks", "fan-out", asked, seconds)


def _up_to(tasks: int, step: int) -> list[int]:
    """Return some numbers of tasks up to all of them."""
    return [*[count for count in _SOME_TASKS if count < tasks][::step], *([tasks] if tasks > 1 else [])]


def _case(  # noqa: PLR0917 - what is timed, and how it is called
    engine: Engine, sessions: SessionATask, name: str, group: str, asked: Asked, seconds: float
) -> Case:
    tasks = len(np.unique(asked.task))
    ways: dict[str, Callable[[], object]] = {
        ENGINE: lambda: engine.predict_many(asked.inputs, asked.row, asked.task),
        ONE_BY_ONE: lambda: sessions.one_by_one(asked),
    }
    if tasks < len(asked):
        ways[GROUPED] = lambda: sessions.grouped(asked)
    return Case(name, group, len(asked), asked.distinct, tasks, side_by_side(ways, seconds=seconds))
