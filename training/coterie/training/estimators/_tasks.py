"""From a target in scikit-learn's manner to questions, and back: one column, a column with tasks, or many."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from coterie.runtime.manifest import TensorSpec
from coterie.runtime.tasks import TaskSpec
from coterie.training.data import Dataset, DenseInputs, Split
from coterie.training.data._assemble import carve
from coterie.training.data._dataset import Array, Floats, Ints, checksum


@dataclass(frozen=True, eq=False)
class Tasks:
    """Which tasks there are, and how a caller names them.

    Attributes:
        names: The caller's names, N of them, in order.
        wide: Whether each task is a column of the target.
    """

    names: Sequence[Hashable]
    wide: bool

    @classmethod
    def of(cls, y: Any, task: Any) -> Tasks:
        """Return the tasks of a target ``[n]``, with or without ``task`` ``[n]``, or ``[n, T]``."""
        shape = np.asarray(y).shape
        if len(shape) == 2:
            if task is not None:
                raise ValueError("task: y has a column for each task already; leave task out")
            columns = getattr(y, "columns", None)
            return cls(list(range(shape[1]) if columns is None else columns), True)
        return cls(["target"] if task is None else np.unique(_column(task)).tolist(), False)

    def questions(self, count: int, task: Any) -> tuple[Ints, Ints]:
        """Return row and task of everything that is asked of ``count`` inputs, both ``[Q]``."""
        if self.wide:
            if task is not None:
                raise ValueError("task: the model was fitted on a column for each task; leave task out")
            tasks = len(self.names)
            return np.repeat(np.arange(count), tasks), np.tile(np.arange(tasks), count)
        row = np.arange(count)
        if task is None:
            if len(self.names) > 1:
                raise ValueError(f"task: give the task of each row: one of {self._listed()}")
            return row, np.zeros(count, dtype=np.int64)
        given = _column(task)
        if given.shape not in ((), (count,)):
            raise ValueError(
                f"task: has shape {list(given.shape)} for {count} rows: give one for each, or one"
            )
        number = {name: index for index, name in enumerate(self.names)}
        distinct, inverse = np.unique(given, return_inverse=True)
        unknown = [name for name in distinct.tolist() if name not in number]
        if unknown:
            close = get_close_matches(str(unknown[0]), [str(name) for name in self.names], n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"fitted were {self._listed()}"
            raise ValueError(f"task: {unknown[0]!r} was not among the tasks in fit: {hint}")
        codes = np.array([number[name] for name in distinct.tolist()], dtype=np.int64)
        return row, np.broadcast_to(codes[inverse.reshape(given.shape)], (count,)).copy()

    def _listed(self) -> str:
        return ", ".join(map(repr, self.names[:10])) + (", ..." if len(self.names) > 10 else "")


def _column(task: Any) -> Array:
    found = np.asarray(task)
    if found.dtype == object:
        # Names and numbers side by side have no order.
        found = found.astype(str)
    return found


def dataset_for(
    inputs: Floats,
    specs: Sequence[TaskSpec],
    *,
    row: Ints,
    task: Ints,
    target: Floats,
    weight: Floats | None,
    dev_share: float,
    generator: np.random.Generator,
) -> Dataset:
    """Make a data set of questions; each task has some in both splits.

    Args:
        inputs: ``[n, D]``.
        specs: What each task answers.
        row: ``[Q]``.
        task: ``[Q]``.
        target: ``[Q]``, class numbers or numbers.
        weight: ``[Q]``.
        dev_share: Share of each task's inputs that is kept from training; with 0 the dev split is the
            training split. A task's only input is in both.
        generator: Draws them.
    """
    chosen = carve(generator.permutation(len(inputs)), row, task, len(specs), dev_share)
    if dev_share == 0:
        chosen[:] = True
    dev = chosen[row]
    train = ~dev if dev_share else dev
    for part, other in ((dev, train), (train, dev)):
        lacking = np.bincount(task[part], minlength=len(specs)) == 0
        part[other & lacking[task]] = True
    splits = {}
    for name, part in (("train", train), ("dev", dev)):
        members, place = np.unique(row[part], return_inverse=True)
        splits[name] = Split(
            inputs=DenseInputs(inputs[members]),
            row=place.astype(np.int64),
            task=task[part],
            target=target[part, None],
            weight=None if weight is None else weight[part],
        )
    spec = TensorSpec(name="inputs", dtype="float32", shape=(None, inputs.shape[1]))
    tasks = tuple(specs)
    return Dataset(inputs=(spec,), tasks=tasks, splits=splits, sha256=checksum((spec,), tasks, splits, None))
