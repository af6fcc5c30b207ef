"""Task balancing: what unlike tasks weigh in the weights they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from coterie.runtime.errors import ConfigError, TrainingError
from coterie.runtime.tasks import TaskSpec
from coterie.training.config import Surgery
from coterie.training.loop.losses import QuestionLoss
from coterie.training.loop.objective import Outcome
from coterie.training.loop.ranks import Ranks
from coterie.training.model import MultiTaskModel

_OWN_KINDS = ("head", "specific")


class UncertaintyLoss(nn.Module):
    """Losses weighed by what each task's noise seems to be (Kendall et al. 2018, equations 7 and 10).

    With s_t = log sigma_t^2 learned: exp(-s_t) L_t + s_t / 2, and half the first term for a regression.

    Attributes:
        log_variance: s, ``[N]``.
    """

    def __init__(self, loss: QuestionLoss, tasks: tuple[TaskSpec, ...], device: torch.device) -> None:
        super().__init__()
        self._loss = loss
        self._factor = torch.tensor([0.5 if task.kind == "regression" else 1.0 for task in tasks]).to(device)
        self.log_variance = nn.Parameter(torch.zeros(len(tasks), device=device))

    def forward(self, scores: Tensor, target: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weighed losses ``[B]``, and whether each question has any label."""
        losses, labelled = self._loss(scores, target, task)
        variance = self.log_variance[task]
        return self._factor[task] * torch.exp(-variance) * losses + variance / 2, labelled


class GradientSurgery:
    """Changes the shared weights' gradient where tasks disagree about it, by an aggregator of ``torchjd``.

    A task's gradient is that of its part of the batch's loss, times the number of tasks T in the batch, so
    that their mean is the ordinary gradient, and weights of tasks and questions keep their meaning. Heads and
    task-specific layers, which no two tasks share, keep the ordinary gradient; so do gates and penalties.

    A step costs T backward passes in place of one, and T times the memory of the shared gradient.
    """

    def __init__(self, name: Surgery, model: MultiTaskModel, ranks: Ranks) -> None:
        self._name = name
        self._model = model
        self._ranks = ranks
        self._weighting = _make_weighting(name, len(model.tasks))
        self._tasks: dict[int, int] = {}
        self._rows = torch.zeros(0)

    def begin(self, tasks: Sequence[int]) -> None:
        """Begin a batch with questions of these tasks."""
        self._tasks = {task: row for row, task in enumerate(tasks)}
        size = sum(each.numel() for each in self._shared())
        self._rows = torch.zeros(len(tasks), size, device=self._ranks.device)

    def add(self, outcome: Outcome, share: float) -> None:
        """Take each task's gradient from one part of the batch, before its backward pass."""
        shared = self._shared()
        weight = outcome.weight / outcome.weight.sum().clamp(min=1e-12)
        for task in set(outcome.task[outcome.weight > 0].tolist()):
            loss = (outcome.losses * weight)[outcome.task == task].sum()
            found = torch.autograd.grad(share * loss, shared, retain_graph=True, allow_unused=True)
            parts = [
                torch.zeros_like(parameter).flatten() if gradient is None else gradient.flatten()
                for parameter, gradient in zip(shared, found, strict=True)
            ]
            self._rows[self._tasks[task]] += torch.cat(parts)

    def finish(self, seed: int) -> None:
        """Put the aggregated gradient in the place of the shared weights' ordinary one.

        Raises:
            TrainingError: If the aggregator finds no weights.
        """
        rows = self._ranks.sum(self._rows)
        rows = rows[rows.any(dim=1)]
        if len(rows) < 2:
            return
        rows = rows * len(rows)
        weights = self._weigh(rows, seed)
        if not bool(torch.isfinite(weights).all()):
            raise TrainingError(
                f"{self._name} finds no common direction of {len(rows)} tasks: use another trainer.balancing"
            )
        change = (weights - 1 / len(rows)) @ rows
        shared = self._shared()
        for parameter, part in zip(
            shared, torch.split(change, [each.numel() for each in shared]), strict=True
        ):
            if parameter.grad is not None:
                parameter.grad += part.reshape(parameter.shape)

    def _weigh(self, rows: Tensor, seed: int) -> Tensor:
        """Return each task's weight in the shared gradient; 1 / T for all is the ordinary one."""
        with torch.random.fork_rng(devices=[]):
            # PCGrad takes the tasks in a random order: the same in every process.
            torch.manual_seed(seed)
            if self._name == "nashmtl":
                # Its solver knows a fixed number of tasks.
                self._weighting.n_tasks = len(rows)
                self._weighting.reset()
                weights: Tensor = self._weighting(rows)
            else:
                weights = self._weighting(rows @ rows.T)
        return weights / len(rows) if self._name == "pcgrad" else weights

    def _shared(self) -> list[nn.Parameter]:
        """Return the parameters that several tasks may use."""
        return [
            parameter
            for stage in self._model.each_stage()
            if stage.kind not in _OWN_KINDS
            for parameter in stage.parameters()
            if parameter.requires_grad and not any(parameter is gate for gate in stage.gate_parameters())
        ]


def _make_weighting(name: Surgery, tasks: int) -> Any:
    title = "the training cannot start:"
    try:
        from torchjd import aggregation
    except ImportError as error:
        advice = "needs the extra balance: pip install 'coterie[balance]'"
        raise ConfigError(title, [f"trainer.balancing: {name} {advice}"]) from error
    make: dict[Surgery, Callable[[], Any]] = {
        "pcgrad": aggregation.PCGradWeighting,
        "mgda": aggregation.MGDAWeighting,
        "imtlg": aggregation.IMTLGWeighting,
        "alignedmtl": aggregation.AlignedMTLWeighting,
        "upgrad": aggregation.UPGradWeighting,
        "cagrad": lambda: aggregation.CAGradWeighting(c=0.5),
        "nashmtl": lambda: aggregation.NashMTL(n_tasks=tasks).weighting,
    }
    try:
        return make[name]()
    except ImportError as error:
        # The solvers are extras of torchjd's own; its message names them.
        raise ConfigError(title, [f"trainer.balancing: {name}: {error}"]) from error
