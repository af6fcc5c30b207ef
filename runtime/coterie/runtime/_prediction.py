"""What an engine answers: arrays for programs, named results for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from coterie.runtime.tasks import TaskSpec

THRESHOLD = 0.5
"""A multilabel task says yes to a label at this probability and above."""

Label = str | tuple[str, ...] | None


@dataclass(frozen=True)
class Result:
    """The answer to one question, by the names of the task's labels."""

    task: str
    scores: Mapping[str, float]
    probabilities: Mapping[str, float] | None
    """``None`` for regression."""
    label: Label
    """The likeliest class, the labels that hold, or ``None`` for regression."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answers to B questions; ``prediction[b]`` is the ``Result`` of one of them.

    Attributes:
        specs: The tasks that ``task`` counts: the one asked, or all of the bundle's.
        task: [B] int64, the index in ``specs`` of each question's task.
        scores: [B, C] float32, the graphs' raw outputs. C is the width of the widest of ``specs``; columns
            past a question's own task are 0.
        probabilities: [B, C] float32: softmax (classification) or sigmoid (multilabel) of the scores, 0 for
            regression; ``None`` when every one of ``specs`` is a regression.
    """

    specs: tuple[TaskSpec, ...]
    task: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32] | None

    def __len__(self) -> int:
        """Return B."""
        return len(self.task)

    def __iter__(self) -> Iterator[Result]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Result:
        spec = self.specs[self.task[index]]
        probabilities = None
        if self.probabilities is not None and spec.kind != "regression":
            probabilities = dict(zip(spec.labels, self.probabilities[index].tolist(), strict=False))
        scores = dict(zip(spec.labels, self.scores[index].tolist(), strict=False))
        return Result(spec.name, scores, probabilities, self._label(index))

    @cached_property
    def label(self) -> npt.NDArray[Any] | None:
        """The labels of the questions.

        One classification task: [B] class names. One multilabel task: [B, L] uint8, 1 where a label holds.
        One regression: ``None``. Several tasks: [B] objects, each as in ``Result.label``.
        """
        if self.probabilities is None:
            return None
        if len(self.specs) == 1 and self.specs[0].kind == "multilabel":
            return (self.probabilities >= THRESHOLD).astype(np.uint8)
        labels = np.empty(len(self), dtype=object)
        for index in range(len(self)):
            labels[index] = self._label(index)
        return labels

    def label_texts(self) -> list[str]:
        """Return each label as text [B]: a class, a JSON list of the labels that hold, "" for regression."""
        texts = []
        for index in range(len(self)):
            label = self._label(index)
            if isinstance(label, tuple):
                texts.append(json.dumps(label, ensure_ascii=False))
            else:
                texts.append(label or "")
        return texts

    @cached_property
    def _likeliest(self) -> list[int]:
        # Once for all rows: a call for each would cost more than the graph does.
        if self.probabilities is None or not self.probabilities.size:
            return []
        best: list[int] = self.probabilities.argmax(axis=1).tolist()
        return best

    def _label(self, index: int) -> Label:
        spec = self.specs[self.task[index]]
        if self.probabilities is None or spec.kind == "regression":
            return None
        if spec.kind == "classification":
            likeliest: str = spec.labels[self._likeliest[index]]
            return likeliest
        holds = (self.probabilities[index] >= THRESHOLD).tolist()
        return tuple(label for label, yes in zip(spec.labels, holds, strict=False) if yes)
