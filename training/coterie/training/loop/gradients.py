"""The gradient of one batch: whole, in parts, over several processes, balanced between tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from coterie.training.loop.balancing import GradientSurgery
from coterie.training.loop.batches import Batch, BatchSource
from coterie.training.loop.objective import Outcome
from coterie.training.loop.ranks import Ranks
from coterie.training.loop.samplers import Ints


def seed_of(*numbers: int) -> int:
    """Return a seed for torch from the training's seed and where in the training it is for."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


class BatchGradient:
    """Computes the gradient of a batch's objective, one share of the batch at a time.

    The shares of all processes and parts have no input in common. Each one's mean loss counts by its share of
    the batch's weight, so that the sum is the gradient of the whole batch, whatever questions a share has.
    """

    def __init__(
        self,
        objective: Callable[[Batch], Outcome],
        source: BatchSource,
        *,
        gates: torch.Generator,
        parts: int = 1,
        surgery: GradientSurgery | None = None,
        ranks: Ranks,
    ) -> None:
        """Take an objective and where its batches come from.

        Args:
            objective: Runs a batch through the model and says what it costs.
            source: Cuts a batch into shares.
            gates: Where gates are drawn from; set to the same state for every share.
            parts: In how many parts each process computes its share.
            surgery: What changes the shared weights' gradient, if anything.
            ranks: The processes.
        """
        self._objective = objective
        self._source = source
        self._gates = gates
        self._parts = parts
        self._surgery = surgery
        self._ranks = ranks

    def __call__(self, questions: Ints, parameters: Sequence[nn.Parameter], seed: int) -> tuple[float, float]:
        """Compute the parameters' gradients; return the mean loss of a question, and the objective."""
        weight = self._source.weight[questions]
        if self._surgery is not None:
            self._surgery.begin(np.unique(self._source.split.task[questions[weight > 0]]).tolist())
        for parameter in parameters:
            parameter.grad = None
        values = torch.zeros(2, device=self._ranks.device)
        shares = self._ranks.world * self._parts
        for number in range(self._parts):
            batch = self._source.batch(questions, self._ranks.rank * self._parts + number, shares)
            if len(batch.question) == 0:
                continue
            own, total = float(self._source.weight[batch.question].sum()), float(weight.sum())
            share = own / total if total > 0 else len(batch.question) / len(questions)
            self._gates.manual_seed(seed)
            outcome = self._objective(batch)
            if self._surgery is not None:
                self._surgery.add(outcome, share)
            loss = share * outcome.loss()
            objective = loss + share * outcome.extra
            objective.backward()  # type: ignore[no-untyped-call]
            values += torch.stack([loss.detach(), objective.detach()])
        mean_loss, whole = self._ranks.sum_gradients(parameters, values).tolist()
        if self._surgery is not None and math.isfinite(whole):
            self._surgery.finish(seed)
        return mean_loss, whole
