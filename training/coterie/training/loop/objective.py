"""What one batch costs: each question's loss, the stages' penalties, and the gates' estimated gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from coterie.training.draws import (
    BaselineDraw,
    BaselineTracker,
    DisarmDraw,
    Draw,
    GateEstimator,
    LeaveOneOutDraw,
    LocalDraw,
    ScoreDraw,
)
from coterie.training.loop.batches import Batch
from coterie.training.loop.lessons import AnswerLoss
from coterie.training.loop.losses import Loss
from coterie.training.model import MultiTaskModel
from coterie.training.stages._scoring import ASKED

_STEP = 30e6
"""What a step costs whatever it computes, in multiplications of a product of matrices; measured."""
_SCORE = 500
"""The same of a number that a head says of a question with one set of gates, and of its loss, where gated
layer and heads are computed together."""
_MIX = 300
"""The same of a number that a head is told, where mixtures are made one by one."""
_WORTH = 1.25
"""How much more a step may cost whose gates' gradient has nearly no variance."""


class _Place(TypedDict):
    place: Tensor
    whole: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The costs of one batch.

    Attributes:
        losses: ``[B]``, each question's loss with the first gates drawn for it.
        weight: ``[B]``, each question's weight; 0 where nothing is learned from it.
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
        loss: Loss,
        gates: torch.Generator,
        baseline: BaselineTracker,
        *,
        estimator: GateEstimator = "auto",
        samples: int = 2,
        asked: float = 1.0,
        differs: AnswerLoss | None = None,
    ) -> None:
        """Take a model and its loss.

        Args:
            model: The model.
            loss: The loss of a question.
            gates: Where gates are drawn from.
            baseline: What a task's loss usually is, for the estimator of that name.
            estimator: How the gates' gradient is estimated.
            samples: Sets of gates drawn for each question, where gates are drawn at all.
            asked: Questions about an input, on average: what decides how many experts a step runs.
            differs: What it costs to differ from a teacher, where there is one.
        """
        self._model = model
        self._loss = loss
        self._gates = gates
        self._baseline = baseline
        self._estimator = estimator
        self._samples = samples
        self._asked = asked
        self._differs = differs

    def __call__(self, batch: Batch) -> Outcome:
        """Answer the batch's questions while training."""
        batch = batch.repeated(self._model.copies)
        draw = self._draw(batch)
        sets = draw.samples
        task = batch.task.repeat(sets)
        scores = self._model(batch.inputs, batch.row.repeat(sets), task, draw)
        # Only the first set of gates is learned from: of the others, losses are all that is asked.
        number = len(batch.task)
        losses, weight = self._costs(scores[:number], batch, 1)
        if sets > 1:
            with torch.no_grad():
                others, _ = self._costs(scores[number:], batch, sets - 1)
            losses = torch.cat([losses, others])
        extra = self._model.penalty() + draw.surrogate(losses, weight, batch.task)
        return Outcome(losses=losses[0], weight=weight, task=batch.task, extra=extra)

    def _costs(self, scores: Tensor, batch: Batch, sets: int) -> tuple[Tensor, Tensor]:
        """Return the losses ``[S, B]`` of so many sets of scores ``[S * B, C]``, and the weights ``[B]``."""
        task = batch.task.repeat(sets)
        losses, labelled = self._loss(
            scores, batch.target.repeat(sets, *[1] * (batch.target.dim() - 1)), task
        )
        weight = batch.weight * labelled[: len(batch.task)]
        if self._differs is not None and batch.answers is not None and batch.taught is not None:
            taught = batch.taught.repeat(sets)
            own = torch.where(taught < 1, (1 - taught) * losses, 0.0)
            losses = own + taught * self._differs(scores, batch.answers.repeat(sets, 1), task)
            weight = batch.weight
        return losses.reshape(sets, -1), weight

    def _draw(self, batch: Batch) -> Draw:
        drawn = [stage for stage in self._model.gated_stages() if stage.draws]
        name = self._estimator if drawn else "score"
        if name == "auto":
            name = cheapest(
                self._model,
                self._samples,
                self._asked,
                # Of the whole batch: all that compute a part of it must draw alike.
                inputs=batch.whole / self._asked,
            )
        samples = self._samples if drawn else 1
        options: _Place = {"place": batch.place, "whole": batch.whole}
        questions = len(batch.task)
        match name:
            case "local":
                gates = sum(stage.draws for stage in drawn)
                return LocalDraw(self._gates, questions, gates, **options)
            case "disarm":
                return DisarmDraw(self._gates, questions, samples=samples, **options)
            case "leave_one_out":
                return LeaveOneOutDraw(self._gates, questions, samples=samples, **options)
            case "baseline":
                return BaselineDraw(self._gates, questions, self._baseline, samples=samples, **options)
        return ScoreDraw(self._gates, questions, samples=samples, **options)


def cheapest(model: MultiTaskModel, samples: int, asked: float, *, inputs: float = math.inf) -> GateEstimator:
    """Choose the estimator of least variance that costs little more than ``samples`` sets of gates do.

    Flipping every gate has by far the least variance. It needs every expert forward, and backward only those
    of the set that was drawn; other estimators need forward those of any set. Going backward costs about
    twice as much as forward. Beside the experts, each set's mixtures and losses cost. Where a gated layer is
    followed by the heads alone, flips cost nothing else.

    Args:
        model: The model, with the gates' probabilities of now.
        samples: Sets of gates drawn for each question.
        asked: Questions about an input, on average.
        inputs: Inputs of a step: few of them cost little beside its many small operations.
    """
    gated = [stage for stage in model.gated_stages() if stage.draws]
    if len(gated) == 1 and gated[0] is model.stages[-2]:
        (stage,) = gated
        probabilities = stage.probabilities().detach()
        expert = stage.bank.block_parameters * stage.draws
        together = asked >= ASKED * stage.tasks
        score = _SCORE * model.head.width if together else _MIX * model.head.size

        def needed(sets: int) -> float:
            """Return the share of experts that some set of gates of some question about an input opens."""
            return float((1 - (1 - probabilities.mean(dim=0)) ** (asked * sets)).mean())

        def cost(sets: int, run: float) -> float:
            """Return what a step costs for an input."""
            return _STEP / inputs + expert * (run + 2 * needed(1)) + asked * sets * score

        if cost(1 + stage.draws, 1.0) <= _WORTH * cost(samples, needed(samples)):
            return "local"
    if samples == 1:
        return "baseline"
    return "disarm" if samples == 2 else "leave_one_out"
