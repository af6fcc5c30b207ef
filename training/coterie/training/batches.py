"""Batches: some inputs and every question asked about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coterie.training.data import Split


@dataclass(frozen=True, kw_only=True)
class Batch:
    """R inputs and B questions about them.

    Attributes:
        inputs: ``[R, ...]``.
        row: ``[B]`` int64, the input each question is about.
        task: ``[B]`` int64.
        target: ``[B, T]`` float32.
        weight: ``[B]`` float32.
        question: ``[B]`` int64, where each question stands in its split.
    """

    inputs: Tensor
    row: Tensor
    task: Tensor
    target: Tensor
    weight: Tensor
    question: npt.NDArray[np.int64]


class BatchSource:
    """Cuts a split into batches; an input labelled for several tasks is encoded once for all of them."""

    def __init__(self, split: Split, tasks: int, *, balance: bool = False) -> None:
        """Take a split; ``balance`` makes every task weigh the same, whatever its number of questions."""
        self.split = split
        self.tasks = tasks
        self._order = np.argsort(split.row, kind="stable")
        self._count = np.bincount(split.row, minlength=len(split.inputs))
        self._start = np.concatenate([[0], np.cumsum(self._count)])
        self._asked = np.flatnonzero(self._count)
        weight = np.ones(len(split.row), dtype=np.float32) if split.weight is None else split.weight
        if balance:
            total = np.bincount(split.task, weights=weight, minlength=tasks)
            share = total.sum() / (np.count_nonzero(total) * np.maximum(total, 1e-12))
            weight = weight * share[split.task]
        self._weight = weight.astype(np.float32)

    @property
    def questions(self) -> int:
        """Number of questions of the split."""
        return len(self.split.row)

    def batches(self, size: int, generator: np.random.Generator | None = None) -> Iterator[Batch]:
        """Yield batches of ``size`` inputs, shuffled where there is a generator."""
        inputs = self._asked if generator is None else generator.permutation(self._asked)
        for start in range(0, len(inputs), size):
            yield self.batch(inputs[start : start + size])

    def number(self, size: int) -> int:
        """Return the number of batches."""
        return -(-len(self._asked) // size)

    def batch(self, inputs: npt.NDArray[np.int64]) -> Batch:
        """Make the batch of these inputs ``[R]``."""
        count = self._count[inputs]
        offset = np.repeat(self._start[inputs] - np.concatenate([[0], np.cumsum(count)[:-1]]), count)
        question = self._order[np.arange(count.sum()) + offset]
        return Batch(
            inputs=torch.from_numpy(self.split.inputs.batch(inputs)),
            row=torch.from_numpy(np.repeat(np.arange(len(inputs)), count)),
            task=torch.from_numpy(self.split.task[question]),
            target=torch.from_numpy(self.split.target[question]),
            weight=torch.from_numpy(self._weight[question]),
            question=question,
        )
