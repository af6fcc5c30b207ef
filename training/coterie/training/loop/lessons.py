"""Answers of teachers, and what it costs to differ from them (Hinton et al. 2015, "Distilling...")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from coterie.runtime.tasks import TaskSpec

_KINDS = ("classification", "multilabel", "regression")


@dataclass(frozen=True, kw_only=True, eq=False)
class Lessons:
    """What teachers answer to the questions of a split, Q of them.

    Attributes:
        answers: ``[Q, C]`` float32: probabilities of classes or labels, or numbers; 0 past a task's width.
        weight: What a question without a label weighs, beside 1 for one that has one.
        labelled: Share of the teachers in the loss of a question with a label, 0 to 1.
    """

    answers: npt.NDArray[np.float32]
    weight: float = 1.0
    labelled: float = 0.0


class AnswerLoss:
    """How far scores are from answers: cross-entropy, or squared error in units of the deviation."""

    def __init__(self, tasks: Sequence[TaskSpec], scale: Tensor) -> None:
        """Take the tasks and the regression targets' deviations ``[N, C]``, on the scores' device."""
        device = scale.device
        self._kind = torch.tensor([_KINDS.index(task.kind) for task in tasks], device=device)
        widths = torch.tensor([task.width for task in tasks], device=device).unsqueeze(1)
        self._valid = torch.arange(int(widths.max()), device=device).unsqueeze(0) < widths
        self._scale = scale

    def __call__(self, scores: Tensor, answers: Tensor, task: Tensor) -> Tensor:
        """Compare scores with answers, both ``[B, C]``, of tasks ``[B]``; return losses ``[B]``."""
        valid, kind = self._valid[task], self._kind[task]
        likelihood = torch.log_softmax(scores.masked_fill(~valid, -torch.inf), dim=1)
        losses = -(answers * likelihood.masked_fill(~valid, 0.0)).sum(1)
        if bool((self._kind != 0).any()):
            each = nn.functional.binary_cross_entropy_with_logits(
                scores, answers.clamp(0, 1), reduction="none"
            )
            squares = ((scores - answers) / self._scale[task]) ** 2
            each = torch.where((kind == 1).unsqueeze(1), each, squares)
            means = torch.where(valid, each, 0.0).sum(1) / valid.sum(1)
            losses = torch.where(kind == 0, losses, means)
        return losses


def as_answers(scores: Tensor, tasks: Sequence[TaskSpec], task: Tensor) -> Tensor:
    """Return what a model's scores ``[B, C]`` for tasks ``[B]`` say: probabilities, or numbers."""
    widths = torch.tensor([spec.width for spec in tasks])[task].unsqueeze(1)
    kind = torch.tensor([_KINDS.index(spec.kind) for spec in tasks])[task].unsqueeze(1)
    valid = torch.arange(scores.shape[1]).unsqueeze(0) < widths
    classes = torch.softmax(scores.masked_fill(~valid, -torch.inf), dim=1)
    others = torch.where(kind == 1, torch.sigmoid(scores), scores)
    return torch.where(valid, torch.where(kind == 0, classes, others), 0.0)
