"""The score-function gradient of the gates (Task Multi-Clustering, equation 3), with a baseline."""

from __future__ import annotations

import torch
from torch import Tensor

_KEEP = 0.95


class BaselineTracker:
    """Each task's running mean loss: the baseline where each question has one draw of gates only."""

    def __init__(self, tasks: int) -> None:
        self._mean = torch.zeros(tasks)
        self._seen = torch.zeros(tasks, dtype=torch.bool)

    def update(self, losses: Tensor, task: Tensor) -> Tensor:
        """Take losses ``[Q]`` of tasks ``[Q]``; return the means of before ``[Q]``, at first the losses."""
        before = torch.where(self._seen[task], self._mean[task], losses)
        count = torch.bincount(task, minlength=len(self._mean))
        total = torch.zeros_like(self._mean).index_add(0, task, losses)
        there = count > 0
        mean = total / count.clamp(min=1)
        kept = torch.where(self._seen, _KEEP * self._mean + (1 - _KEEP) * mean, mean)
        self._mean = torch.where(there, kept, self._mean)
        self._seen = self._seen | there
        return before

    def state(self) -> dict[str, list[float] | list[bool]]:
        """Return what a checkpoint keeps."""
        return {"mean": self._mean.tolist(), "seen": self._seen.tolist()}

    def restore(self, state: dict[str, list[float] | list[bool]]) -> None:
        """Take back what ``state`` returned."""
        self._mean = torch.tensor(state["mean"])
        self._seen = torch.tensor(state["seen"], dtype=torch.bool)


def surrogate(
    losses: Tensor, log_probability: Tensor, weight: Tensor, task: Tensor, tracker: BaselineTracker
) -> Tensor:
    """Return a scalar whose gradient is that of the gates' distribution, L grad log p(b).

    With S >= 2 draws a question, each draw's baseline is the mean loss of the others (leave-one-out), which
    keeps the estimate unbiased and takes most of its variance away.

    Args:
        losses: ``[S, Q]``, the loss of each draw; no gradient flows through it here.
        log_probability: ``[S, Q]``, log-probability of the gates drawn.
        weight: ``[1, Q]``, the questions' weights.
        task: ``[Q]``.
        tracker: The baseline for S = 1.
    """
    losses = losses.detach()
    samples = len(losses)
    if samples > 1:
        baseline = (losses.sum(0, keepdim=True) - losses) / (samples - 1)
    else:
        # Questions of no weight (without any label) say nothing of a task's loss.
        counts = weight[0] > 0
        baseline = losses.clone()
        baseline[0, counts] = tracker.update(losses[0, counts], task[counts])
    total = (samples * weight.sum()).clamp(min=1e-12)
    return ((losses - baseline) * log_probability * weight).sum() / total
