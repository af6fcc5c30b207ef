"""What a model scores on a split, task by task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coterie.runtime.tasks import TaskSpec
from coterie.training.batches import BatchSource
from coterie.training.losses import QuestionLoss
from coterie.training.metrics import PRIMARY, task_metrics

Answer = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(inputs[R, ...], row[B], task[B]) -> scores[B, C]``: a model, a frozen model, a router graph."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Metrics of one split.

    Attributes:
        loss: Mean loss of a question.
        metric: Mean over tasks of the primary metric (accuracy, area under the ROC curve, R2).
        tasks: Task name to metric name to value.
    """

    loss: float
    metric: float
    tasks: dict[str, dict[str, float]]


@torch.no_grad()
def answer_all(answer: Answer, source: BatchSource, size: int = 256) -> npt.NDArray[np.float32]:
    """Return the scores ``[Q, C]`` of every question of a split, in its order."""
    parts = [(batch.question, answer(batch.inputs, batch.row, batch.task)) for batch in source.batches(size)]
    if not parts:
        return np.zeros((0, 1), dtype=np.float32)
    scores = np.zeros((source.questions, parts[0][1].shape[1]), dtype=np.float32)
    for question, part in parts:
        scores[question] = part.numpy()
    return scores


def evaluate(answer: Answer, source: BatchSource, tasks: tuple[TaskSpec, ...], loss: QuestionLoss) -> Scores:
    """Score a split."""
    split = source.split
    scores = answer_all(answer, source)
    losses, labelled = loss(
        torch.from_numpy(scores), torch.from_numpy(split.target), torch.from_numpy(split.task)
    )
    by_task = {
        spec.name: task_metrics(
            spec, scores[split.task == index, : spec.width], split.target[split.task == index]
        )
        for index, spec in enumerate(tasks)
    }
    primary = [
        by_task[spec.name][PRIMARY[spec.kind]] for spec in tasks if PRIMARY[spec.kind] in by_task[spec.name]
    ]
    return Scores(
        loss=float(losses[labelled].mean()) if bool(labelled.any()) else 0.0,
        metric=float(np.mean(primary)) if primary else 0.0,
        tasks=by_task,
    )
