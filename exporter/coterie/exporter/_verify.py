"""Every graph is asked real inputs, from the files as written, and must answer as the torch model does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import Tensor

from coterie.exporter._asking import (
    LARGE,
    Asked,
    batch_sizes,
    every_length,
    few_lengths,
    large_length,
    mixed,
    questions,
)
from coterie.exporter._weights import Array
from coterie.runtime.errors import ExportError, ParityError
from coterie.runtime.manifest import Parity, TensorSpec
from coterie.runtime.tasks import TaskSpec
from coterie.training.several import Arrays, Tensors, apply, count, each, take

Reference = Callable[[Tensors, Tensor, Tensor], Tensor]
"""The torch model: ``(inputs [R, ...], row [B], task [B]) -> scores [B, C]``."""

Floats = npt.NDArray[np.float32]

_INPUTS = 64
_PROBABILITY_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Rounding:
    """How graphs may differ that round states on their way, as the same sum is not taken in the same order.

    Attributes:
        share: Share of a graph's scores that may differ by more than the tolerance.
        most: What they may differ by, relative where the score is above 1.
    """

    share: float
    most: float


@dataclass(frozen=True)
class Checked:
    """What is checked.

    Attributes:
        folder: Where the files lie.
        inputs: The graphs' inputs.
        tasks: All tasks.
        graphs: Each task's file.
        router: The router's file.
        rounding: What answers may differ by beyond the tolerance.
        parts: The files of the router's two parts, its host's and its device's.
    """

    folder: Path
    inputs: tuple[TensorSpec, ...]
    tasks: Sequence[TaskSpec]
    graphs: Sequence[str]
    router: str
    rounding: Rounding | None = None
    parts: tuple[str, str] | None = None

    def feeds(self, inputs: Arrays) -> dict[str, Array]:
        """Return inputs by their names in the graphs."""
        return {spec.name: array for spec, array in zip(self.inputs, each(inputs), strict=True)}


def verify(
    checked: Checked,
    reference: Reference,
    samples: Arrays,
    *,
    tolerance: float,
    tasks: Sequence[int] | None = None,
) -> Parity:
    """Check task graphs and the router against the torch model.

    Every graph is asked batches of no, one, two, an odd number of and all samples; of sequences also in half
    their length and in length 1. The router, and three of the task graphs, are asked a thousand inputs at
    once as well, and sequences of every length. The router's two parts together are asked what it is asked.

    Args:
        checked: The files.
        reference: The torch model.
        samples: Real inputs ``[n, ...]``; the first 64 are used.
        tolerance: Largest difference of a score, relative to the score where that is above 1.
        tasks: Whose graphs are asked; every task's if not given. The router is asked about all tasks.

    Raises:
        ParityError: If a graph's answer differs by more, or is not finite.
        ExportError: If a graph cannot be loaded or run.
    """
    samples = take(samples, slice(_INPUTS))
    chosen = range(len(checked.tasks)) if tasks is None else tasks
    cases = [_Case(checked, reference, inputs) for inputs in few_lengths(checked.inputs, samples)]
    lengths = [_Case(checked, reference, inputs) for inputs in every_length(checked.inputs, samples)]
    large = _Case(checked, reference, large_length(checked.inputs, samples))
    thorough = {chosen[place] for place in (0, len(chosen) // 2, -1)} if len(chosen) else set()
    errors = {}
    for number in chosen:
        session, comparison = (
            GraphSession(checked.folder, checked.graphs[number]),
            _Comparison(tolerance, checked.rounding),
        )
        for case in (*cases, *(lengths if number in thorough else ())):
            _check_task(checked, session, case, number, comparison)
        if number in thorough:
            _check_task(checked, session, large, number, comparison, sizes=[LARGE])
        comparison.check_share(session.file)
        errors[checked.tasks[number].name] = comparison.rounded
    routers: list[tuple[Router, _Comparison]] = [
        (router, _Comparison(tolerance, checked.rounding)) for router in _routers(checked)
    ]
    for case in cases:
        _check_routers(checked, routers, case, questions(len(case), len(checked.tasks)))
    for case, rows in (*((case, len(case)) for case in lengths), (large, LARGE)):
        _check_routers(checked, routers, case, [mixed(len(case), rows, len(checked.tasks))])
    for router, comparison in routers:
        comparison.check_share(router.file)
    return Parity(
        tolerance=tolerance,
        max_abs_error=max(*(comparison.rounded for _, comparison in routers), *errors.values(), 0.0),
        graphs=len(errors) + 1,
        inputs=count(samples),
        of=len(checked.tasks) + 1,
        tasks=errors,
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
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    def run(self, feeds: dict[str, Array]) -> dict[str, Floats]:
        """Return the outputs by name."""
        try:
            results = self._session.run(None, {name: feeds[name] for name in self.inputs})
        except Exception as error:
            rows = {name: array.shape[0] for name, array in feeds.items()}
            raise ExportError(f"{self.file} cannot be run on {rows} rows ({type(error).__name__})") from error
        return dict(zip(self.outputs, results, strict=True))


class DividedRouter:
    """The router's two parts, asked as it is: what the first answers is given to the second."""

    def __init__(self, folder: Path, host: str, device: str) -> None:
        self.file = device
        self._host = GraphSession(folder, host)
        self._device = GraphSession(folder, device)

    def run(self, feeds: dict[str, Array]) -> dict[str, Floats]:
        """Return the outputs by name."""
        count = np.array([len(next(iter(feeds.values())))], dtype=np.int64)
        ahead = self._host.run({"row": feeds["row"], "task": feeds["task"], "count": count})
        return self._device.run({**feeds, **ahead})


Router = GraphSession | DividedRouter


def _routers(checked: Checked) -> list[Router]:
    whole = GraphSession(checked.folder, checked.router)
    return [whole] if checked.parts is None else [whole, DividedRouter(checked.folder, *checked.parts)]


class _Case:
    """Inputs, and the torch model's scores for them."""

    def __init__(self, checked: Checked, reference: Reference, inputs: Arrays) -> None:
        self.inputs = apply(np.ascontiguousarray, inputs)
        self._tensors = apply(torch.from_numpy, self.inputs)
        self._tasks = checked.tasks
        self._reference = reference
        self._width = max(task.width for task in self._tasks)

    def __len__(self) -> int:
        return count(self.inputs)

    def scores(self, task: int) -> Floats:
        """Return one task's scores for every input, ``[n, (L,) C]``."""
        return self.answers(np.arange(len(self)), np.full(len(self), task))

    def answers(self, row: npt.NDArray[np.int64], task: npt.NDArray[np.int64]) -> Floats:
        """Return the scores of questions, ``[B, (L,) C]``."""
        with torch.no_grad():
            answer = self._reference(self._tensors, torch.from_numpy(row), torch.from_numpy(task))
        words = each(self.inputs)[0].shape[1:2] if self._tasks[0].kind == "tagging" else ()
        wanted = (len(row), *words, self._width)
        if tuple(answer.shape) != wanted:
            raise ExportError(f"the torch model answers {tuple(answer.shape)}, not {wanted}")
        scores = answer.detach().cpu().numpy().astype(np.float32)
        finite = np.isfinite(scores).all(axis=tuple(range(1, scores.ndim)))
        if not finite.all():
            name = self._tasks[int(task[~finite][0])].name
            raise ParityError(f"the torch model's scores for task {name!r} are not finite: train it again")
        return scores


class _Comparison:
    """Compares scores, and remembers the largest difference."""

    def __init__(self, tolerance: float, rounding: Rounding | None) -> None:
        self._tolerance = tolerance
        self._rounding = rounding
        self._scores = self._rounded = 0
        self.worst = 0.0

    @property
    def rounded(self) -> float:
        """The largest difference, to two digits."""
        return float(f"{self.worst:.2g}")

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
        errors = difference / np.maximum(1.0, np.abs(wanted))
        self._scores += errors.size
        self._rounded += int((errors > self._tolerance).sum())
        limit = self._tolerance if self._rounding is None else max(self._tolerance, self._rounding.most)
        if errors.max() > limit:
            other = "the torch model" if self._rounding is None else "what it answers to each question alone"
            raise ParityError(
                f"{graph} at {batch} differs from {other} by {errors.max():.3g}, more than the tolerance of "
                f"{limit:g}; nothing was published: look for a block whose result depends on other "
                "rows or on randomness, or allow a larger tolerance"
            )

    def check_share(self, graph: str) -> None:
        """Check that no more scores were rounded otherwise than may be."""
        if self._rounding is not None and self._rounded > self._rounding.share * self._scores:
            raise ParityError(
                f"{self._rounded} of {self._scores} scores of {graph} are not what it answers to each "
                "question alone; nothing was published: look for a block whose result depends on other rows"
            )

    def check_probabilities(self, graph: str, batch: str, got: Floats, wanted: Floats) -> None:
        if got.shape != wanted.shape or not np.allclose(got, wanted, rtol=0, atol=_PROBABILITY_TOLERANCE):
            raise ParityError(f"{graph} at {batch} answers probabilities that are not those of its scores")


def _check_task(
    checked: Checked,
    session: GraphSession,
    case: _Case,
    number: int,
    comparison: _Comparison,
    *,
    sizes: Sequence[int] | None = None,
) -> None:
    spec = checked.tasks[number]
    wanted = case.scores(number)
    for rows in sizes or batch_sizes(len(case)):
        batch = f"batch size {rows}"
        chosen = np.arange(rows) % len(wanted)
        answer = session.run(checked.feeds(take(case.inputs, chosen)))
        comparison.check(session.file, batch, answer["scores"], wanted[chosen, ..., : spec.width])
        if ("probabilities" in answer) != (spec.kind != "regression"):
            raise ParityError(f"{session.file} has the outputs {session.outputs}, wrong for a {spec.kind}")
        if "probabilities" in answer:
            expected = probabilities(spec, answer["scores"])
            comparison.check_probabilities(session.file, batch, answer["probabilities"], expected)


def _check_routers(
    checked: Checked,
    routers: Sequence[tuple[Router, _Comparison]],
    case: _Case,
    asked: Iterable[Asked],
) -> None:
    for ask in asked:
        feeds = {**checked.feeds(take(case.inputs, ask.take)), "row": ask.row, "task": ask.task}
        batch = f"{len(ask.take)} inputs, {len(ask.row)} questions"
        wanted = case.answers(ask.take[ask.row], ask.task)
        for router, comparison in routers:
            answer = router.run(feeds)
            comparison.check(router.file, batch, answer["scores"], wanted)
            if "probabilities" in answer:
                expected = _probabilities_of(checked, answer["scores"], ask.task)
                comparison.check_probabilities(router.file, batch, answer["probabilities"], expected)


def _probabilities_of(checked: Checked, scores: Floats, task: npt.NDArray[np.int64]) -> Floats:
    """Return what the scores of a router's questions mean as probabilities."""
    expected = np.zeros_like(scores)
    for question, number in enumerate(task):
        spec = checked.tasks[int(number)]
        own = slice(question, question + 1)
        expected[own, ..., : spec.width] = probabilities(spec, scores[own, ..., : spec.width])
    return expected


def probabilities(task: TaskSpec, scores: Floats) -> Floats:
    """Return what a task's scores ``[R, (L,) C]`` mean as probabilities; zeros for a regression."""
    if task.kind == "regression":
        return np.zeros_like(scores)
    with np.errstate(over="ignore"):
        if task.kind == "multilabel":
            return np.asarray(1 / (1 + np.exp(-scores)), dtype=np.float32)
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-np.inf))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float32)
