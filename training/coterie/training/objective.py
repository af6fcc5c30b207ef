"""What one batch costs: each question's loss, the stages' penalties, and the gates' estimated gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from coterie.training.batches import Batch
from coterie.training.estimator import BaselineTracker, surrogate
from coterie.training.losses import QuestionLoss
from coterie.training.model import MultiTaskModel
from coterie.training.stages import Draw


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The costs of one batch.

    Attributes:
        losses: ``[B]``, each question's loss, the mean over the gates drawn for it.
        weight: ``[B]``, each question's weight; 0 for a question without a label.
        task: ``[B]`` int64.
        extra: Scalar: the stages' penalties, and a term whose gradient is that of the gates.
    """

    losses: Tensor
    weight: Tensor
    task: Tensor
    extra: Tensor

    def loss(self) -> Tensor:
        """Return the weighted mean loss of a question."""
        return (self.losses * self.weight).sum() / self.weight.sum().clamp(min=1e-12)


class Objective:
    """Runs a batch through a model and says what it costs."""

    def __init__(
        self,
        model: MultiTaskModel,
        loss: QuestionLoss,
        samples: int,
        gates: torch.Generator,
        baseline: BaselineTracker,
    ) -> None:
        """Take a model and its loss.

        Args:
            model: The model.
            loss: The loss of a question.
            samples: Gates drawn for each question, where a stage learns gates.
            gates: Where they are drawn from.
            baseline: What a task's loss usually is, for one sample.
        """
        self._model = model
        self._loss = loss
        learned = any(stage.gate_parameters() for stage in model.each_stage())
        self._samples = samples if learned else 1
        self._gates = gates
        self._baseline = baseline

    def __call__(self, batch: Batch) -> Outcome:
        """Answer the batch's questions while training."""
        samples = self._samples
        row, task = batch.row.repeat(samples), batch.task.repeat(samples)
        draw = Draw(self._gates, torch.zeros(len(task)))
        scores = self._model(batch.inputs, row, task, draw)
        losses, labelled = self._loss(scores, batch.target.repeat(samples, 1), task)
        weight = batch.weight * labelled[: len(batch.task)]
        losses = losses.reshape(samples, -1)
        extra = self._model.penalty()
        if draw.log_probability.requires_grad:
            gates = draw.log_probability.reshape(samples, -1)
            extra = extra + surrogate(losses, gates, weight.unsqueeze(0), batch.task, self._baseline)
        return Outcome(losses=losses.mean(0), weight=weight, task=batch.task, extra=extra)
