"""Batches: some inputs and every question asked about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coterie.training.data import Split
from coterie.training.loop.lessons import Lessons
from coterie.training.loop.samplers import Ints, Rates, draw_inputs, draw_questions
from coterie.training.several import Tensors, apply

_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """R inputs and B questions about them: a batch of a split, or one part of it.

    Attributes:
        inputs: ``[R, ...]``; of a model with several inputs one of each.
        row: ``[B]`` int64, the input each question is about.
        task: ``[B]`` int64.
        target: ``[B, T]`` float32.
        weight: ``[B]`` float32; 0 for a question from which nothing is learned.
        question: ``[B]`` int64, where each question stands in its split.
        place: ``[B]`` int64, where each question stands among those of the whole batch.
        whole: Number of questions of the whole batch.
        answers: ``[B, C]`` float32, what teachers answer, if there are any.
        taught: ``[B]`` float32, their share in each question's loss.
    """

    inputs: Tensors
    row: Tensor
    task: Tensor
    target: Tensor
    weight: Tensor
    question: Ints
    place: Tensor
    whole: int
    answers: Tensor | None = None
    taught: Tensor | None = None

    def repeated(self, copies: int) -> Batch:
        """Return the batch with every question as many times, all of them once, then all of them again."""
        if copies == 1:
            return self

        def tiled(tensor: Tensor) -> Tensor:
            return tensor.repeat(copies, *[1] * (tensor.dim() - 1))

        again = torch.arange(copies, device=self.place.device).repeat_interleave(len(self.place))
        return replace(
            self,
            row=tiled(self.row),
            task=tiled(self.task),
            target=tiled(self.target),
            weight=tiled(self.weight),
            question=np.tile(self.question, copies),
            place=tiled(self.place) + self.whole * again,
            whole=self.whole * copies,
            answers=None if self.answers is None else tiled(self.answers),
            taught=None if self.taught is None else tiled(self.taught),
        )


class BatchSource:
    """Cuts a split into batches; an input labelled for several tasks is encoded once for all of them."""

    def __init__(
        self,
        split: Split,
        tasks: int,
        *,
        balance: bool = False,
        task_weights: Mapping[int, float] | None = None,
        rates: Rates | None = None,
        lessons: Lessons | None = None,
        device: torch.device = _CPU,
    ) -> None:
        """Take a split.

        Args:
            split: The inputs and the questions about them.
            tasks: Number of tasks.
            balance: Make every task weigh the same, whatever its number of questions.
            task_weights: Factors of some tasks' weights.
            rates: How often each task is asked while training.
            lessons: What teachers answer; without it a question that has no label weighs nothing.
            device: Where batches go.
        """
        self.split = split
        self.tasks = tasks
        self.device = device
        self._rates = rates or Rates()
        self._order = np.argsort(split.row, kind="stable")
        self._count = np.bincount(split.row, minlength=len(split.inputs))
        self._start = np.concatenate([[0], np.cumsum(self._count)])
        self._asked = np.flatnonzero(self._count)
        self._lengths = split.inputs.lengths()[self._asked]
        weight: npt.NDArray[Any] = np.ones(len(split.row)) if split.weight is None else split.weight
        labelled = ~np.isnan(split.target).reshape(len(split.row), -1).all(axis=1)
        weight = weight * np.where(labelled, 1.0, 0.0 if lessons is None else lessons.weight)
        self._lessons = lessons
        if lessons is not None:
            self._taught = np.where(labelled, lessons.labelled, 1.0).astype(np.float32)
        if balance:
            total = np.bincount(split.task, weights=weight, minlength=tasks)
            share = total.sum() / (np.count_nonzero(total) * np.maximum(total, 1e-12))
            weight = weight * share[split.task]
        if task_weights:
            factor = np.ones(tasks)
            factor[list(task_weights)] = list(task_weights.values())
            weight = weight * factor[split.task]
        self.weight: npt.NDArray[np.float32] = weight.astype(np.float32)
        self._of_task = [np.flatnonzero((split.task == task) & (weight > 0)) for task in range(tasks)]

    @property
    def questions(self) -> int:
        """Number of questions of the split."""
        return len(self.split.row)

    @property
    def asked(self) -> float:
        """Mean number of questions about an input that any is asked about."""
        return self.questions / max(1, len(self._asked))

    def batches(self, size: int, first: int = 0, every: int = 1) -> Iterator[Batch]:
        """Yield batches of ``size`` inputs with all their questions, the shortest inputs first.

        With ``first`` and ``every``, only so many of them, from the first on.
        """
        inputs = self._asked[np.argsort(self._lengths, kind="stable")]
        for start in range(first * size, len(inputs), every * size):
            yield self.batch(self._about(inputs[start : start + size]))

    def epoch(self, size: int, generator: np.random.Generator) -> Iterator[Ints]:
        """Yield the questions of each batch of an epoch, in an order of the generator's.

        Batches have ``size`` inputs with all their questions, or, with another sampler than ``natural``, as
        many questions as such a batch has on average.
        """
        if self._rates.sampler == "natural":
            for inputs in draw_inputs(self._lengths, size, self._rates.bucket, generator):
                yield self._about(self._asked[inputs])
        else:
            asked = sum(map(len, self._of_task))
            drawn = draw_questions(self._of_task, self._rates, asked, generator)
            yield from (part for part in np.array_split(drawn, self.number(size)) if len(part))

    def number(self, size: int) -> int:
        """Return the number of batches of an epoch."""
        return -(-len(self._asked) // size)

    def batch(self, questions: Ints, part: int = 0, parts: int = 1) -> Batch:
        """Make a batch of these questions, or one of ``parts`` parts of it that share no input.

        A part other than the first may be empty.
        """
        inputs, row = np.unique(self.split.row[questions], return_inverse=True)
        bounds = [-(-len(inputs) * edge // parts) for edge in (part, part + 1)]
        place = np.flatnonzero((row >= bounds[0]) & (row < bounds[1]))
        chosen = questions[place]

        def tensor(array: npt.NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(array).to(self.device)

        return Batch(
            inputs=apply(tensor, self.split.inputs.batch(inputs[bounds[0] : bounds[1]])),
            row=tensor(row[place] - bounds[0]),
            task=tensor(self.split.task[chosen]),
            target=tensor(self.split.target[chosen]),
            weight=tensor(self.weight[chosen]),
            question=chosen,
            place=tensor(place),
            whole=len(questions),
            answers=None if self._lessons is None else tensor(self._lessons.answers[chosen]),
            taught=None if self._lessons is None else tensor(self._taught[chosen]),
        )

    def _about(self, inputs: Ints) -> Ints:
        """Return all questions about these inputs."""
        count = self._count[inputs]
        offset = np.repeat(self._start[inputs] - np.concatenate([[0], np.cumsum(count)[:-1]]), count)
        return np.asarray(self._order[np.arange(count.sum()) + offset])
