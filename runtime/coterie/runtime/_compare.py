"""Two bundles side by side: which tasks changed, where, and by how much."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from coterie.runtime.bundle import Bundle
from coterie.runtime.bundle._safetensors import TensorIndex, read_index
from coterie.runtime.engine import Engine
from coterie.runtime.errors import BundleError, InvalidInputError
from coterie.runtime.manifest import WEIGHTS, TensorUse
from coterie.runtime.plan import StagePlan

Change = Literal["same", "changed", "added", "removed"]
Array = npt.NDArray[Any]

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
"""Types of a weight file as NumPy reads them; BF16, which it lacks, as the first two bytes of a float32."""


@dataclass(frozen=True, kw_only=True)
class StageChange:
    """What one stage does differently for a task.

    Attributes:
        stage: Its name.
        added: Blocks that the task uses now and did not use before.
        removed: Blocks that it used before.
        weights: Largest distance of a kept block's weights, relative to their norm before: 0 is equal. A
            block whose tensors have other shapes is not kept.
        mixture: Largest difference of a mixture weight of a kept block.
    """

    stage: str
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    weights: float = 0.0
    mixture: float = 0.0

    @property
    def nothing(self) -> bool:
        """Whether the stage does the same as before."""
        return not (self.added or self.removed or self.weights or self.mixture)


@dataclass(frozen=True, kw_only=True)
class AnswerChange:
    """What a task answers differently about the same inputs.

    Attributes:
        inputs: How many were asked about.
        flipped: Share of them with another label; 0 for a regression.
        largest: Largest difference of a probability, or of a score where there are none.
    """

    inputs: int
    flipped: float
    largest: float


@dataclass(frozen=True, kw_only=True)
class TaskChange:
    """What became of one task.

    Attributes:
        task: Its name.
        change: ``changed`` where its labels, its blocks or their weights differ.
        labels: Whether its kind or its labels differ.
        stages: The stages that differ.
        metrics: Split to metric to difference, after minus before.
        answers: What it answers differently, where there were inputs to ask about.
    """

    task: str
    change: Change
    labels: bool = False
    stages: tuple[StageChange, ...] = ()
    metrics: dict[str, dict[str, float]]
    answers: AnswerChange | None = None


def compare_bundles(before: Bundle, after: Bundle, inputs: Any = None) -> list[TaskChange]:
    """Compare two bundles, task by task, by name: those of ``after`` first, then those that are gone.

    Args:
        before: A bundle.
        after: Another one.
        inputs: Inputs ``[R, ...]`` to ask both about, as an engine takes them; None asks nothing.

    Raises:
        InvalidInputError: If there are inputs, and one of the two does not take them.
        BundleError: If weights are of a type that nobody can compare.
    """
    old, new = _Weights(before), _Weights(after)
    asked = None if inputs is None else (_ask(before, inputs, "first"), _ask(after, inputs, "second"))
    names = [task.name for task in after.tasks]
    known = {task.name for task in before.tasks}
    changes = []
    for name in names:
        if name in known:
            changes.append(_task(name, old, new, asked))
        else:
            changes.append(TaskChange(task=name, change="added", metrics={}))
    gone = [task.name for task in before.tasks if task.name not in set(names)]
    return changes + [TaskChange(task=name, change="removed", metrics={}) for name in gone]


class _Weights:
    """A bundle's blocks, read from its weight file when they are needed."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._blocks: dict[str, dict[str, Array]] = {}

    @cached_property
    def _file(self) -> tuple[npt.NDArray[np.uint8], TensorIndex]:
        path = self.bundle.path / WEIGHTS
        return np.memmap(path, dtype=np.uint8, mode="r"), read_index(path)

    def of(self, block: str) -> dict[str, Array]:
        """Return a block's tensors by name."""
        if block not in self._blocks:
            uses = self.bundle.manifest.tensors.get(block, ())
            self._blocks[block] = {use.name: self._read(use) for use in uses}
        return self._blocks[block]

    def shapes(self, block: str) -> dict[str, tuple[int, ...]]:
        """Return the shapes of a block's tensors by name."""
        return {use.name: use.shape for use in self.bundle.manifest.tensors.get(block, ())}

    def _read(self, use: TensorUse) -> Array:
        content, index = self._file
        span = index.spans[use.tensor]
        if span.dtype not in _DTYPES:
            raise BundleError(f"weights of type {span.dtype} cannot be compared: export in another precision")
        start = span.start + use.offset
        raw = content[start : start + span.part(use.shape)].view(_DTYPES[span.dtype]).reshape(use.shape)
        return (raw.astype("<u4") << 16).view("<f4") if span.dtype == "BF16" else raw


def _task(name: str, old: _Weights, new: _Weights, asked: tuple[_Answers, _Answers] | None) -> TaskChange:
    before, after = old.bundle.task_index(name), new.bundle.task_index(name)
    relabelled = old.bundle.tasks[before] != new.bundle.tasks[after]
    stages = tuple(_stages(old, before, new, after))
    changed = relabelled or bool(stages)
    return TaskChange(
        task=name,
        change="changed" if changed else "same",
        labels=relabelled,
        stages=stages,
        metrics=_metrics(old.bundle, before, new.bundle, after),
        answers=None
        if asked is None
        else asked[0].change(before, asked[1], after, comparable=not relabelled),
    )


def _stages(old: _Weights, before: int, new: _Weights, after: int) -> Iterator[StageChange]:
    """Yield the stages that do something else for a task: by name, in the order of the later bundle."""
    was = {stage.name: stage for stage in old.bundle.manifest.plan.stages}
    now = {stage.name: stage for stage in new.bundle.manifest.plan.stages}
    for name in [*now, *(name for name in was if name not in now)]:
        first = _used(was[name], before) if name in was else {}
        second = _used(now[name], after) if name in now else {}
        if len(first) == len(second) == 1:
            # One block before and after: it is the task's, whatever number it has in its bank.
            pairs = list(zip(first, second, strict=True))
        else:
            pairs = [(block, block) for block in first if block in second]
        pairs = [(one, other) for one, other in pairs if old.shapes(one) == new.shapes(other)]
        kept_first, kept_second = {one for one, _ in pairs}, {other for _, other in pairs}
        distance = [_distance(old.of(one), new.of(other)) for one, other in pairs]
        change = StageChange(
            stage=name,
            added=tuple(block for block in second if block not in kept_second),
            removed=tuple(block for block in first if block not in kept_first),
            weights=max(distance, default=0.0),
            mixture=max(
                (
                    *(abs(first[one] - second[other]) for one, other in pairs),
                    _stitched_differently(was.get(name), before, now.get(name), after),
                )
            ),
        )
        if not change.nothing:
            yield change


def _used(stage: StagePlan, task: int) -> dict[str, float]:
    """Return a task's blocks with their mixture weights."""
    return {
        stage.blocks[block].name: weight
        for block, weight in zip(stage.uses[task], stage.weights[task], strict=True)
    }


def _stitched_differently(before: StagePlan | None, old: int, after: StagePlan | None, new: int) -> float:
    """Return the largest difference of a share with which a task's columns take from each other."""
    if before is None or after is None or before.stitches is None or after.stitches is None:
        return 0.0
    first, second = _shares(before, old), _shares(after, new)
    return max(
        (
            abs(first[row].get(taken, 0.0) - second[row].get(taken, 0.0))
            for row in first.keys() & second.keys()
            for taken in first[row] | second[row]
        ),
        default=0.0,
    )


def _shares(stage: StagePlan, task: int) -> dict[tuple[int, ...], dict[tuple[int, ...], float]]:
    """Return alpha of each subspace that a task depends on, by block, and its beta, by layer and column."""
    stitches, used = stage.stitches, set(stage.uses[task])
    if stitches is None:
        return {}
    found: dict[tuple[int, ...], dict[tuple[int, ...], float]] = {}
    for number, layer in enumerate(stitches.layers):
        for row, shares in enumerate(layer.alpha):
            taken = {block: share for block, share in zip(layer.blocks, shares, strict=True) if share}
            if taken.keys() <= used:
                place = (number, layer.columns[row // stitches.subspaces], row % stitches.subspaces)
                found[place] = {(stage.blocks[block].source,): share for block, share in taken.items()}
    found[()] = {
        (number, stitches.layers[number].columns[column]): beta
        for number, column, beta in stitches.reads[task]
    }
    return found


def _distance(before: dict[str, Array], after: dict[str, Array]) -> float:
    """Return the distance of two equally shaped blocks' weights, relative to the norm of the first."""
    total = moved = 0.0
    for name, array in before.items():
        first, second = array.astype(np.float64), after[name].astype(np.float64)
        total += float((first**2).sum())
        moved += float(((second - first) ** 2).sum())
    return float(np.sqrt(moved / total)) if total > 0 else float(np.sqrt(moved))


def _metrics(old: Bundle, before: int, new: Bundle, after: int) -> dict[str, dict[str, float]]:
    was, now = old.manifest.tasks[before].metrics, new.manifest.tasks[after].metrics
    differences = {
        split: {name: value - was[split][name] for name, value in values.items() if name in was[split]}
        for split, values in now.items()
        if split in was
    }
    return {split: values for split, values in differences.items() if values}


@dataclass(frozen=True, eq=False)
class _Answers:
    """What one bundle answers: every task's scores and labels about the same inputs."""

    engine: Engine
    inputs: Any

    def change(
        self, task: int, other: _Answers, others_task: int, *, comparable: bool
    ) -> AnswerChange | None:
        """Compare with what another bundle answers; None where the labels are not the same."""
        if not comparable:
            return None
        first = self.engine.predict(self.engine.tasks[task].name, self.inputs)
        second = other.engine.predict(other.engine.tasks[others_task].name, self.inputs)
        one, two = first.probabilities, second.probabilities
        if one is None or two is None:
            one, two = first.scores, second.scores
        flipped = [own.label != others.label for own, others in zip(first, second, strict=True)]
        return AnswerChange(
            inputs=len(first),
            flipped=float(np.mean(flipped)) if flipped else 0.0,
            largest=float(np.abs(one - two).max()) if one.size else 0.0,
        )


def _ask(bundle: Bundle, inputs: Any, which: str) -> _Answers:
    engine = Engine(bundle)
    try:
        engine.predict(engine.tasks[0].name, inputs)
    except InvalidInputError as error:
        raise InvalidInputError(f"the {which} bundle does not take these inputs: {error}") from error
    return _Answers(engine, inputs)
