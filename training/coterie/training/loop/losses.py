"""The loss of each question, by kind of task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from coterie.runtime.tasks import TaskSpec

Loss = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(scores[B, C], target[B, T], task[B]) -> losses[B], labelled[B]``."""

_KINDS = ("classification", "multilabel", "regression", "tagging")


class QuestionLoss:
    """L_t(m(t, x), y) of B questions: cross-entropy, binary cross-entropy or squared error.

    Missing labels (NaN) are left out of a question's mean, which for a tagging is over its words; a question
    without any label has loss 0 and is not labelled. Label smoothing is for classification and tagging.
    """

    def __init__(self, tasks: Sequence[TaskSpec], scale: Tensor, *, label_smoothing: float = 0.0) -> None:
        """Take the tasks and the regression targets' deviations ``[N, C]``, on the losses' device."""
        device = scale.device
        self._kind = torch.tensor([_KINDS.index(task.kind) for task in tasks], device=device)
        widths = torch.tensor([task.width for task in tasks], device=device).unsqueeze(1)
        self._valid = torch.arange(int(widths.max()), device=device).unsqueeze(0) < widths
        self._even = bool(self._valid.all())
        self._scale = scale
        self._smoothing = label_smoothing
        self._present = [number for number in range(len(_KINDS)) if bool((self._kind == number).any())]

    def __call__(self, scores: Tensor, target: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """Compare scores ``[B, C]`` (taggings: ``[B, L, C]``) with targets ``[B, T]`` of tasks ``[B]``.

        Returns:
            The losses ``[B]`` and whether each question has any label ``[B]``.
        """
        if len(self._present) == 1:
            return self._of_kind(self._present[0], scores, target, task)
        losses = scores.new_zeros(len(task))
        labelled = torch.ones(len(task), dtype=torch.bool, device=task.device)
        for number in self._present:
            chosen = (self._kind[task] == number).nonzero().flatten()
            if len(chosen) == 0:
                continue
            loss, has_label = self._of_kind(number, scores[chosen], target[chosen], task[chosen])
            losses = losses.index_copy(0, chosen, loss)
            labelled[chosen] = has_label
        return losses, labelled

    def _of_kind(self, number: int, scores: Tensor, target: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        valid = self._valid[task]
        if number == 0:
            return self._classification(scores, target[:, 0], valid)
        if _KINDS[number] == "tagging":
            return self._tagging(scores, target, valid)
        return self._columns(number, scores, target, valid, task)

    def _classification(self, scores: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        known = ~torch.isnan(target)
        label = torch.where(known, target, 0.0).long().unsqueeze(1)
        if not self._even:
            scores = scores.masked_fill(~valid, -torch.inf)
        log_likelihood = torch.log_softmax(scores, dim=1)
        loss = -log_likelihood.gather(1, label).squeeze(1)
        if self._smoothing:
            uniform = -log_likelihood.masked_fill(~valid, 0.0).sum(1) / valid.sum(1)
            loss = (1 - self._smoothing) * loss + self._smoothing * uniform
        return torch.where(known, loss, 0.0), known

    def _tagging(self, scores: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        target = target[:, : scores.shape[1]]
        known = ~torch.isnan(target)
        question = known.nonzero()[:, 0]
        losses, _ = self._classification(scores[known], target[known], valid[question])
        count = known.sum(1)
        total = scores.new_zeros(len(scores)).index_add(0, question, losses)
        return total / count.clamp(min=1), count > 0

    def _columns(
        self, number: int, scores: Tensor, target: Tensor, valid: Tensor, task: Tensor
    ) -> tuple[Tensor, Tensor]:
        width = min(scores.shape[1], target.shape[1])
        scores, target = scores[:, :width], target[:, :width]
        known = valid[:, :width] & ~torch.isnan(target)
        target = torch.where(known, target, torch.zeros_like(target))
        if number == 1:
            each = nn.functional.binary_cross_entropy_with_logits(scores, target, reduction="none")
        else:
            each = ((scores - target) / self._scale[task][:, :width]) ** 2
        count = known.sum(1)
        return torch.where(known, each, 0.0).sum(1) / count.clamp(min=1), count > 0
