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

Named = Mapping[str, float] | tuple[Mapping[str, float], ...]
"""Numbers by the names of a task's labels; for a tagging, such a mapping for each word."""


@dataclass(frozen=True)
class Result:
    """The answer to one question, by the names of the task's labels."""

    task: str
    scores: Named
    probabilities: Named | None
    """``None`` for regression."""
    label: Label
    """The likeliest class, the labels that hold, each word's likeliest tag, or ``None`` for regression."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How a batcher came to an answer; times are of ``time.perf_counter``, in seconds."""

    arrived: float
    """When the questions joined the queue."""
    started: float
    """When the engine began the run that answered them; no two runs of a process have the same."""
    seconds: float
    """How long that run took."""
    rows: int
    """How many questions it answered, of whatever tasks and requests."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answers to B questions; ``prediction[b]`` is the ``Result`` of one of them.

    Attributes:
        specs: The tasks that ``task`` counts: the one asked, or all of the bundle's.
        task: [B] int64, the index in ``specs`` of each question's task.
        scores: [B, C] float32, the graphs' raw outputs. C is the width of the widest of ``specs``; columns
            past a question's own task are 0. Taggings: [B, L, C], one for each word; L is the longest input's
            length, and what stands past an input's own means nothing.
        probabilities: Of the scores' shape, float32: softmax (classification, tagging) or sigmoid
            (multilabel) of the scores, 0 for regression; ``None`` when all of ``specs`` are regressions.
        lengths: [B] int64, the words of each question's input; ``None`` unless ``specs`` are taggings.
        timing: How long it waited and ran, when a batcher was asked; else ``None``.
    """

    specs: tuple[TaskSpec, ...]
    task: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32] | None
    lengths: npt.NDArray[np.int64] | None = None
    timing: Timing | None = None

    def __len__(self) -> int:
        """Return B."""
        return len(self.task)

    def __iter__(self) -> Iterator[Result]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Result:
        spec = self.specs[self.task[index]]
        probabilities = None
        if self.probabilities is not None and spec.kind != "regression":
            probabilities = self._named(spec, self.probabilities, index)
        return Result(spec.name, self._named(spec, self.scores, index), probabilities, self._label(index))

    @cached_property
    def label(self) -> npt.NDArray[Any] | None:
        """The labels of the questions.

        One classification task: [B] class names. One multilabel task: [B, L] uint8, 1 where a label holds.
        One regression: ``None``. Several tasks: [B] objects, each as in ``Result.label``. Taggings: [B, L]
        tags, "" past an input's own length.
        """
        if self.probabilities is None:
            return None
        if self.lengths is not None:
            return self._texts()
        if len(self.specs) == 1 and self.specs[0].kind == "multilabel":
            return (self.probabilities >= THRESHOLD).astype(np.uint8)
        labels = np.empty(len(self), dtype=object)
        for index in range(len(self)):
            labels[index] = self._label(index)
        return labels

    def label_texts(self) -> list[Any]:
        """Return each label as text.

        Returns:
            [B]: a class, a JSON list of the labels that hold, "" for regression. Taggings: [B, L] tags, ""
            past an input's own length.
        """
        texts: list[Any] = self._texts().tolist()
        return texts

    def _texts(self) -> npt.NDArray[np.object_]:
        texts = np.full(self.scores.shape[:-1], "", dtype=object)
        for index in range(len(self)):
            label = self._label(index)
            if self.lengths is not None:
                texts[index, : self.lengths[index]] = label
            elif isinstance(label, tuple):
                texts[index] = json.dumps(label, ensure_ascii=False)
            else:
                texts[index] = label or ""
        return texts

    def _named(self, spec: TaskSpec, values: npt.NDArray[np.float32], index: int) -> Named:
        """Return one question's numbers by the names of the labels."""
        own = values[index].tolist()
        if self.lengths is None:
            return dict(zip(spec.labels, own, strict=False))
        return tuple(dict(zip(spec.labels, word, strict=False)) for word in own[: self.lengths[index]])

    @cached_property
    def _likeliest(self) -> list[Any]:
        # Once for all rows: a call for each would cost more than the graph does.
        if self.probabilities is None or not self.probabilities.size:
            return []
        best: list[Any] = self.probabilities.argmax(axis=-1).tolist()
        return best

    def _label(self, index: int) -> Label:
        spec = self.specs[self.task[index]]
        if self.probabilities is None or spec.kind == "regression":
            return None
        if spec.kind == "classification":
            likeliest: str = spec.labels[self._likeliest[index]]
            return likeliest
        if self.lengths is not None:
            return tuple(spec.labels[tag] for tag in self._likeliest[index][: self.lengths[index]])
        holds = (self.probabilities[index] >= THRESHOLD).tolist()
        return tuple(label for label, yes in zip(spec.labels, holds, strict=False) if yes)
