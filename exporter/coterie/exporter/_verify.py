"""Every graph is asked real inputs, from the files as written, and must answer as the torch model does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import Tensor

from coterie.exporter._weights import Array
from coterie.runtime.errors import ExportError, ParityError
from coterie.runtime.manifest import Parity, TensorSpec
from coterie.runtime.tasks import TaskSpec

Reference = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The torch model: ``(inputs [R, ...], row [B], task [B]) -> scores [B, C]``."""

Floats = npt.NDArray[np.float32]

_INPUTS = 64
_PROBABILITY_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Checked:
    """What is checked.

    Attributes:
        folder: Where the files lie.
        input: The graphs' input.
        tasks: All tasks.
        graphs: Each task's file.
        router: The router's file.
    """

    folder: Path
    input: TensorSpec
    tasks: Sequence[TaskSpec]
    graphs: Sequence[str]
    router: str


def verify(
    checked: Checked,
    reference: Reference,
    samples: Array,
    *,
    tolerance: float,
    tasks: Sequence[int] | None = None,
) -> Parity:
    """Check task graphs and the router against the torch model.

    Args:
        checked: The files.
        reference: The torch model.
        samples: Real inputs ``[n, ...]``; the first 64 are used.
        tolerance: Largest difference of a score, relative to the score where that is above 1.
        tasks: Whose graphs are checked; every task's if not given. The router is asked about all tasks.

    Raises:
        ParityError: If a graph's answer differs by more, or is not finite.
        ExportError: If a graph cannot be loaded or run.
    """
    samples = samples[:_INPUTS]
    comparison = _Comparison(tolerance)
    chosen = range(len(checked.tasks)) if tasks is None else tasks
    cases = [_Case(checked, reference, inputs) for inputs in _lengths(checked.input, samples)]
    for number in chosen:
        session = GraphSession(checked.folder, checked.graphs[number])
        for case in cases:
            _check_task(checked, session, case, number, comparison)
    session = GraphSession(checked.folder, checked.router)
    for case in cases:
        _check_router(checked, session, case, comparison)
    return Parity(
        tolerance=tolerance,
        max_abs_error=float(f"{comparison.worst:.2g}"),
        graphs=len(chosen) + 1,
        inputs=len(samples),
    )


class GraphSession:
    """One graph in ONNX Runtime."""

    def __init__(self, folder: Path, file: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4  # what it would print is raised, too
        self.file = file
        try:
            self._session = ort.InferenceSession(
                str(folder / file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ExportError(
                f"ONNX Runtime cannot load {file}: export again ({type(error).__name__})"
            ) from error
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    def run(self, feeds: dict[str, Array]) -> dict[str, Floats]:
        """Return the outputs by name."""
        try:
            results = self._session.run(None, feeds)
        except Exception as error:
            rows = {name: array.shape[0] for name, array in feeds.items()}
            raise ExportError(f"{self.file} cannot be run on {rows} rows ({type(error).__name__})") from error
        return dict(zip(self.outputs, results, strict=True))


class _Case:
    """Inputs, and the torch model's scores for every task, computed task by task when needed."""

    def __init__(self, checked: Checked, reference: Reference, inputs: Array) -> None:
        self.inputs = np.ascontiguousarray(inputs)
        self._tasks = checked.tasks
        self._reference = reference
        self._scores: dict[int, Floats] = {}

    @property
    def width(self) -> int:
        return max(task.width for task in self._tasks)

    def scores(self, task: int) -> Floats:
        """Return one task's scores for every input, ``[n, (L,) C]``."""
        if task not in self._scores:
            count = len(self.inputs)
            with torch.no_grad():
                answer = self._reference(
                    torch.from_numpy(self.inputs), torch.arange(count), torch.full((count,), task)
                )
            words = self.inputs.shape[1:2] if self._tasks[0].kind == "tagging" else ()
            if tuple(answer.shape) != (count, *words, self.width):
                wanted = (count, *words, self.width)
                raise ExportError(f"the torch model answers {tuple(answer.shape)}, not {wanted}")
            scores = answer.detach().cpu().numpy().astype(np.float32)
            if not np.isfinite(scores).all():
                name = self._tasks[task].name
                raise ParityError(
                    f"the torch model's scores for task {name!r} are not finite: train it again"
                )
            self._scores[task] = scores
        return self._scores[task]

    def answers(self, row: npt.NDArray[np.int64], task: npt.NDArray[np.int64]) -> Floats:
        """Return the scores of questions, ``[B, (L,) C]``."""
        wanted = [self.scores(int(number))[index] for index, number in zip(row, task, strict=True)]
        return np.array(wanted, dtype=np.float32).reshape(len(row), *self.scores(0).shape[1:])


class _Comparison:
    """Compares scores, and remembers the largest difference."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self.worst = 0.0

    def check(self, graph: str, batch: str, got: Floats, wanted: Floats) -> None:
        if got.shape != wanted.shape:
            raise ParityError(
                f"{graph} at {batch} answers {got.shape} scores, the torch model {wanted.shape}"
            )
        if not np.isfinite(got).all():
            raise ParityError(f"{graph} at {batch} answers scores that are not finite; nothing was published")
        if not got.size:
            return
        difference = np.abs(got.astype(np.float64) - wanted)
        self.worst = max(self.worst, float(difference.max()))
        error = float((difference / np.maximum(1.0, np.abs(wanted))).max())
        if error > self._tolerance:
            raise ParityError(
                f"{graph} at {batch} differs from the torch model by {error:.3g}, more than the tolerance of "
                f"{self._tolerance:g}; nothing was published: look for a block whose result depends on other "
                "rows or on randomness, or allow a larger tolerance"
            )

    def check_probabilities(self, graph: str, batch: str, got: Floats, wanted: Floats) -> None:
        if got.shape != wanted.shape or not np.allclose(got, wanted, rtol=0, atol=_PROBABILITY_TOLERANCE):
            raise ParityError(f"{graph} at {batch} answers probabilities that are not those of its scores")


def _check_task(
    checked: Checked, session: GraphSession, case: _Case, number: int, comparison: _Comparison
) -> None:
    spec = checked.tasks[number]
    wanted = case.scores(number)
    for rows in _batch_sizes(len(case.inputs)):
        batch = f"batch size {rows}"
        answer = session.run({checked.input.name: case.inputs[:rows]})
        comparison.check(session.file, batch, answer["scores"], wanted[:rows, ..., : spec.width])
        if ("probabilities" in answer) != (spec.kind != "regression"):
            raise ParityError(f"{session.file} has the outputs {session.outputs}, wrong for a {spec.kind}")
        if "probabilities" in answer:
            expected = probabilities(spec, answer["scores"])
            comparison.check_probabilities(session.file, batch, answer["probabilities"], expected)


def _check_router(checked: Checked, session: GraphSession, case: _Case, comparison: _Comparison) -> None:
    for inputs, row, task in _questions(case.inputs, len(checked.tasks)):
        batch = f"{len(inputs)} inputs, {len(row)} questions"
        answer = session.run({checked.input.name: inputs, "row": row, "task": task})
        # The inputs are a prefix of the case's.
        comparison.check(session.file, batch, answer["scores"], case.answers(row, task))
        if "probabilities" in answer:
            expected = np.zeros_like(answer["scores"])
            for question, number in enumerate(task):
                spec = checked.tasks[int(number)]
                own = slice(question, question + 1)
                scores = answer["scores"][own, ..., : spec.width]
                expected[own, ..., : spec.width] = probabilities(spec, scores)
            comparison.check_probabilities(session.file, batch, answer["probabilities"], expected)


def _questions(
    inputs: Array, tasks: int
) -> Iterator[tuple[Array, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield inputs, row and task in every way of asking: none, one, all tasks of one, mixed, repeated."""
    count = len(inputs)
    generator = np.random.default_rng(0)
    none = np.zeros(0, dtype=np.int64)
    yield inputs[:0], none, none
    yield inputs, none, none
    yield inputs[:1], np.zeros(1, dtype=np.int64), np.array([tasks - 1])
    yield inputs[:1], np.zeros(tasks, dtype=np.int64), np.arange(tasks)
    yield inputs, generator.permutation(count), generator.integers(0, tasks, count)
    odd = min(count, count // 2 | 1)
    yield inputs[:odd], generator.integers(0, odd, 3 * odd), generator.integers(0, tasks, 3 * odd)


def _batch_sizes(count: int) -> list[int]:
    return sorted({0, 1, min(count, count // 2 | 1), count})


def _lengths(spec: TensorSpec, samples: Array) -> Iterator[Array]:
    """Yield the samples as they are, and cut to half their length and to 1 where that is open."""
    yield samples
    axes = [axis for axis, size in enumerate(spec.shape) if axis > 0 and size is None]
    for part in (2, samples.size) if axes else ():
        shorter = samples
        for axis in axes:
            shorter = shorter.take(range(max(1, shorter.shape[axis] // part)), axis=axis)
        yield shorter


def probabilities(task: TaskSpec, scores: Floats) -> Floats:
    """Return what a task's scores ``[R, (L,) C]`` mean as probabilities; zeros for a regression."""
    if task.kind == "regression":
        return np.zeros_like(scores)
    with np.errstate(over="ignore"):
        if task.kind == "multilabel":
            return np.asarray(1 / (1 + np.exp(-scores)), dtype=np.float32)
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-np.inf))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float32)
