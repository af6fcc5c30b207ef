"""Random gates, and estimates of their gradient (Task Multi-Clustering, equation 3).

A step draws gates for Q questions, and looks at what each set of gates costs. The gates' distribution knows
nothing of the inputs, so that all gates of all layers of a model are one vector of independent choices:
whatever is unbiased for one layer is unbiased for several, drawn jointly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

GateEstimator = Literal["auto", "score", "baseline", "leave_one_out", "disarm", "local"]

_KEEP = 0.95


class BaselineTracker:
    """Each task's running mean loss: the baseline where each question has one draw of gates only."""

    def __init__(self, tasks: int) -> None:
        self._mean = torch.zeros(tasks)
        self._seen = torch.zeros(tasks, dtype=torch.bool)

    def update(self, losses: Tensor, task: Tensor) -> Tensor:
        """Take losses ``[Q]`` of tasks ``[Q]``; return the means of before ``[Q]``, at first the losses."""
        self._mean, self._seen = self._mean.to(losses.device), self._seen.to(losses.device)
        before = torch.where(self._seen[task], self._mean[task], losses)
        count = torch.bincount(task, minlength=len(self._mean))
        total = torch.zeros_like(self._mean).index_add(0, task, losses)
        there = count > 0
        mean = total / count.clamp(min=1)
        kept = torch.where(self._seen, _KEEP * self._mean + (1 - _KEEP) * mean, mean)
        self._mean = torch.where(there, kept, self._mean)
        self._seen = self._seen | there
        return before

    def agree(self, total: Callable[[Tensor], Tensor]) -> None:
        """Take the mean of several processes' trackers; ``total`` sums a tensor over them."""
        number = total(self._seen.float())
        self._mean = total(self._mean * self._seen) / number.clamp(min=1)
        self._seen = number > 0

    def state(self) -> dict[str, list[float] | list[bool]]:
        """Return what a checkpoint keeps."""
        return {"mean": self._mean.tolist(), "seen": self._seen.tolist()}

    def restore(self, state: dict[str, list[float] | list[bool]]) -> None:
        """Take back what ``state`` returned."""
        self._mean = torch.tensor(state["mean"])
        self._seen = torch.tensor(state["seen"], dtype=torch.bool)


class Draw(ABC):
    """The random gates of one step: S sets for each of Q questions, set s of question q at s * Q + q.

    The model's weights learn from the first set, as in the paper; the others are for the gates alone, so
    nothing is differentiated that only they need.

    A step may be computed in parts: by several processes, or one after the other. Every part then draws for
    all questions of the step, from one seed, and keeps its own: the gates are the same however it is cut.

    Attributes:
        questions: Q.
        samples: S.
        score: ``[S, Q]``; a set's score times its advantage has the gates' gradient. None: nothing was drawn.
    """

    def __init__(
        self,
        generator: torch.Generator,
        questions: int,
        *,
        samples: int = 1,
        place: Tensor | None = None,
        whole: int = 0,
    ) -> None:
        """Prepare to draw.

        Args:
            generator: Where gates come from, on the CPU whatever the device, so that devices agree.
            questions: Q.
            samples: S.
            place: ``[Q]`` int64, where these questions stand among all of the step; as they are by default.
            whole: Number of all questions of the step, when ``place`` is given.
        """
        self.questions = questions
        self.samples = samples
        self.score: Tensor | None = None
        self._generator = generator
        self._place = None if place is None else place.cpu()
        self._whole = questions if place is None else whole

    def uniform(self, columns: int, device: torch.device | None = None) -> Tensor:
        """Return numbers from [0, 1), ``[S * Q, columns]``."""
        return self._numbers(self.samples, columns, device).flatten(0, 1)

    def normal(self, columns: int, device: torch.device | None = None) -> Tensor:
        """Return numbers from the standard Gaussian, ``[S * Q, columns]``."""
        numbers: Tensor = torch.special.ndtri(self.uniform(columns, device).clamp(1e-6, 1 - 1e-6))
        return numbers

    def bernoulli(self, logits: Tensor) -> Tensor:
        """Draw gates that are open with probabilities sigmoid(``logits``), bool ``[S * Q, M]``.

        The logits are ``[S * Q, M]``, or ``[Q, M]`` for every set.
        """
        opened = self.uniform(logits.shape[1], logits.device).reshape(-1, *logits.shape)
        opened = opened < torch.sigmoid(logits.detach())
        score = torch.nn.functional.logsigmoid(torch.where(opened, logits, -logits)).sum(dim=-1)
        self._add(score.flatten())
        return opened.flatten(0, 1)

    def categorical(self, logits: Tensor) -> Tensor:
        """Draw one of M with probabilities softmax(``logits [S * Q, M]``); return it as bool, as wide."""
        chosen = _pick(self.uniform(1, logits.device), logits)
        self._add((torch.log_softmax(logits, dim=1) * chosen).sum(dim=1))
        return chosen

    def surrogate(self, losses: Tensor, weight: Tensor, task: Tensor) -> Tensor:
        """Return a scalar whose gradient estimates that of the mean loss with respect to the gates' logits.

        Args:
            losses: ``[S, Q]``; no gradient flows through them here.
            weight: ``[Q]``, the questions' weights.
            task: ``[Q]`` int64.
        """
        if self.score is None:
            return losses.new_zeros(())
        advantage = self._advantage(losses.detach(), weight, task)
        return (advantage * self.score * weight).sum() / weight.sum().clamp(min=1e-12)

    @abstractmethod
    def _advantage(self, losses: Tensor, weight: Tensor, task: Tensor) -> Tensor:
        """Return by how much each set's score counts, ``[S, Q]``."""

    def _add(self, score: Tensor) -> None:
        score = score.reshape(self.samples, self.questions)
        self.score = score if self.score is None else self.score + score

    def _numbers(self, sets: int, columns: int, device: torch.device | None) -> Tensor:
        numbers = torch.rand((sets, self._whole, columns), generator=self._generator)
        return (numbers if self._place is None else numbers[:, self._place]).to(device)


class ScoreDraw(Draw):
    """The score function as printed in the paper: loss times the gradient of the log-probability."""

    def _advantage(self, losses: Tensor, weight: Tensor, task: Tensor) -> Tensor:
        del weight, task
        return losses / self.samples


class BaselineDraw(Draw):
    """The score function, each task's usual loss taken off."""

    def __init__(
        self,
        generator: torch.Generator,
        questions: int,
        tracker: BaselineTracker,
        *,
        samples: int = 1,
        place: Tensor | None = None,
        whole: int = 0,
    ) -> None:
        super().__init__(generator, questions, samples=samples, place=place, whole=whole)
        self._tracker = tracker

    def _advantage(self, losses: Tensor, weight: Tensor, task: Tensor) -> Tensor:
        # Questions of no weight (without any label) say nothing of a task's loss.
        counts = weight > 0
        baseline = losses.mean(dim=0)
        baseline[counts] = self._tracker.update(baseline[counts], task[counts])
        return (losses - baseline) / self.samples


class LeaveOneOutDraw(Draw):
    """Each set's baseline is the mean loss of the question's other sets (Kool et al. 2019)."""

    def _advantage(self, losses: Tensor, weight: Tensor, task: Tensor) -> Tensor:
        del weight, task
        others = (losses.sum(0, keepdim=True) - losses) / (self.samples - 1)
        return (losses - others) / self.samples


class DisarmDraw(Draw):
    """Pairs of opposite gates (DisARM, Dong, Mnih and Tucker 2020).

    A pair shares its uniform numbers, u and 1 - u. Given which gates opened in one set of the pair only, the
    direction of the gradient is known but for the difference of two losses. The sets of a pair stand S / 2
    apart. Choices of one among several are drawn independently, each the other's baseline.
    """

    def bernoulli(self, logits: Tensor) -> Tensor:
        """Draw gates that are open with probabilities sigmoid(``logits``), bool ``[S * Q, M]``.

        The logits are ``[S * Q, M]``, or ``[Q, M]`` for every set.
        """
        half = self._numbers(self.samples // 2, logits.shape[1], logits.device)
        mine = logits[: self.questions]
        probability = torch.sigmoid(mine.detach())
        first, second = half < probability, 1 - half < probability
        sign = first.to(logits.dtype) - second.to(logits.dtype)
        toward = 0.5 * (sign * torch.sigmoid(mine.detach().abs()) * mine).sum(dim=-1)
        self._add(torch.cat([toward, -toward]))
        return torch.cat([first, second]).flatten(0, 1)

    def _advantage(self, losses: Tensor, weight: Tensor, task: Tensor) -> Tensor:
        del weight, task
        return (losses - losses.roll(self.samples // 2, dims=0)) / self.samples


class LocalDraw(Draw):
    """Local expectation gradients (Titsias and Lazaro-Gredilla 2015): what would each gate's flip have cost?

    One set is drawn; each other set differs from it in one gate, or makes another choice among several.
    So the expectation over one gate is exact, given what was drawn of all others, of the same layer and of
    other layers: unbiased, and with variance only from those others. For a single layer that chooses one
    among several there are none, and the gradient is exact.
    """

    def __init__(
        self,
        generator: torch.Generator,
        questions: int,
        gates: int,
        *,
        place: Tensor | None = None,
        whole: int = 0,
    ) -> None:
        """Prepare to draw ``gates`` gates in all; a choice of one among M counts as M."""
        super().__init__(generator, questions, samples=1 + gates, place=place, whole=whole)
        self._done = 0

    def uniform(self, columns: int, device: torch.device | None = None) -> Tensor:
        """Return numbers from [0, 1), the same for all sets, ``[S * Q, columns]``."""
        return self._numbers(1, columns, device).expand(self.samples, -1, -1).flatten(0, 1)

    def bernoulli(self, logits: Tensor) -> Tensor:
        """Draw gates that are open with probabilities sigmoid(``logits``), bool ``[S * Q, M]``.

        The logits are ``[S * Q, M]``, or ``[Q, M]`` for every set.
        """
        first, number = 1 + self._done, logits.shape[1]
        sets = self.flips(logits).repeat(self.samples, 1, 1)
        gate = torch.arange(number, device=logits.device)
        sets[first + gate, :, gate] ^= True
        return sets.flatten(0, 1)

    def flips(self, logits: Tensor) -> Tensor:
        """Draw as ``bernoulli`` does; return the first set alone, ``[Q, M]``: M others flip a gate each."""
        probability = torch.sigmoid(logits[: self.questions])
        drawn = self._numbers(1, logits.shape[1], logits.device)[0] < probability.detach()
        self._try(logits.shape[1], torch.where(drawn, -probability, probability))
        return drawn

    def categorical(self, logits: Tensor) -> Tensor:
        """Draw one of M with probabilities softmax(``logits [S * Q, M]``); return it as bool, as wide."""
        mine, number = logits[: self.questions], logits.shape[1]
        sets = _pick(self._numbers(1, 1, logits.device)[0], mine).repeat(self.samples, 1, 1)
        tried = slice(1 + self._done, 1 + self._done + number)
        sets[tried] = torch.eye(number, dtype=torch.bool, device=logits.device).unsqueeze(1)
        self._try(number, torch.softmax(mine, dim=1))
        return sets.flatten(0, 1)

    def _try(self, number: int, score: Tensor) -> None:
        before, after = 1 + self._done, self.samples - 1 - self._done - number
        self._done += number
        self._add(torch.nn.functional.pad(score.T, (0, 0, before, after)))

    def _advantage(self, losses: Tensor, weight: Tensor, task: Tensor) -> Tensor:
        del weight, task
        return losses - losses[0]


def _pick(uniform: Tensor, logits: Tensor) -> Tensor:
    """Choose one of M by a number from [0, 1) ``[B, 1]``; return it as bool ``[B, M]``."""
    bound = torch.softmax(logits.detach(), dim=1).cumsum(dim=1)[:, :-1]
    choice = (uniform >= bound).sum(dim=1)
    return torch.nn.functional.one_hot(choice, logits.shape[1]).bool()
