"""What a model scores on a split, task by task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coterie.runtime.tasks import TaskSpec
from coterie.training.loop.batches import Batch, BatchSource
from coterie.training.loop.losses import QuestionLoss
from coterie.training.loop.metrics import task_metrics
from coterie.training.loop.ranks import Ranks
from coterie.training.several import Tensors

Answer = Callable[[Tensors, Tensor, Tensor], Tensor]
"""``(inputs[R, ...], row[B], task[B]) -> scores[B, C]``: a model, a frozen model, a router graph.

Taggings answer ``[B, L, C]``."""

Read = Callable[[Tensor, Batch], Tensor]
"""What is kept of a batch's scores, ``[B, K]``."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Metrics of one split.

    Attributes:
        loss: Mean loss of a question.
        metric: Mean over tasks of the metric that they are compared by (``TaskSpec.metric``).
        tasks: Task name to metric name to value.
        losses: ``[N]``, each task's mean loss of a question; 0 without any label.
    """

    loss: float
    metric: float
    losses: npt.NDArray[np.float64]
    tasks: dict[str, dict[str, float]]


@torch.no_grad()
def answer_all(
    answer: Answer,
    source: BatchSource,
    size: int = 256,
    ranks: Ranks | None = None,
    read: Read = lambda scores, _: scores,
) -> npt.NDArray[np.float32]:
    """Return the scores ``[Q, C]``, or what is read of them, of every question of a split, in its order.

    ``ranks`` share the work.
    """
    ranks = ranks or Ranks(source.device)
    parts = [
        (batch.question, read(answer(batch.inputs, batch.row, batch.task), batch))
        for batch in source.batches(size, ranks.rank, ranks.world)
    ]
    width = ranks.largest(parts[0][1].shape[1] if parts else 1)
    scores = torch.zeros((source.questions, width), device=source.device)
    for question, part in parts:
        scores[torch.from_numpy(question).to(source.device)] = part.float()
    found: npt.NDArray[np.float32] = ranks.sum(scores).cpu().numpy()
    return found


def evaluate(
    answer: Answer,
    source: BatchSource,
    tasks: tuple[TaskSpec, ...],
    loss: QuestionLoss,
    ranks: Ranks | None = None,
) -> Scores:
    """Score a split; the loss is on the CPU."""
    split = source.split
    widths = torch.tensor([spec.width for spec in tasks])

    def read(scores: Tensor, batch: Batch) -> Tensor:
        """Return each question's loss, NaN without a label, and its scores; a tagging's tags instead."""
        scores, target, task = scores.float().cpu(), batch.target.cpu(), batch.task.cpu()
        each, labelled = loss(scores, target, task)
        answers = scores
        if scores.dim() == 3:
            others = torch.arange(scores.shape[2]) >= widths[task].unsqueeze(1)
            tags = scores.masked_fill(others.unsqueeze(1), -torch.inf).argmax(dim=2)
            rest = target.shape[1] - tags.shape[1]
            answers = torch.nn.functional.pad(tags, (0, rest), value=-1).to(scores.dtype)
        return torch.cat([torch.where(labelled, each, torch.nan).unsqueeze(1), answers], dim=1)

    found = answer_all(answer, source, ranks=ranks, read=read)
    losses, answers = found[:, 0], found[:, 1:]
    labelled = ~np.isnan(losses)
    by_task = {
        spec.name: task_metrics(spec, answers[split.task == index], split.target[split.task == index])
        for index, spec in enumerate(tasks)
    }
    primary = [by_task[spec.name][spec.metric] for spec in tasks if spec.metric in by_task[spec.name]]
    total = np.bincount(split.task[labelled], losses[labelled], len(tasks))
    count = np.bincount(split.task[labelled], minlength=len(tasks))
    return Scores(
        losses=total / np.maximum(count, 1),
        loss=float(losses[labelled].mean()) if labelled.any() else 0.0,
        metric=float(np.mean(primary)) if primary else 0.0,
        tasks=by_task,
    )
