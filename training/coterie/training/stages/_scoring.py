"""A gated layer that only the heads follow, where most tasks are asked about most inputs: both in one.

Heads are affine, so that what a head says of a mixture is the mixture of what it says of each expert. With M
experts, S states and N tasks one product gives all that all heads say of all experts, whatever gates are
drawn; another set of gates, or a gate's flip, is then a sum of C numbers an expert.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coterie.training.dispatch import State
from coterie.training.draws import Draw, LocalDraw
from coterie.training.stages._gated import GatedStage
from coterie.training.stages._head import HeadStage
from coterie.training.stages.gates import BernoulliGate

ASKED = 0.5
"""Share of all possible questions from which on all heads are asked about all states."""
_MOST = 0.75
"""Share of the experts' work from which on all of it is done, which needs no bookkeeping."""


def scored(gated: GatedStage, head: HeadStage, state: State, task: Tensor, draw: Draw) -> Tensor | None:
    """Return the scores ``[S' * Q, C]`` of questions for S' sets of gates, as both stages would.

    Only of vectors, and where no gates were drawn before. None where the stages are to be asked one by one.
    """
    number, states, tasks = draw.questions, len(state.values), gated.tasks
    gate = gated.gate
    asked = states * tasks
    if not (
        draw.score is None
        and gated.ready
        and gated.block.shape[1] == gated.bank.blocks
        and ASKED * asked <= number <= asked
        and (isinstance(gate, BernoulliGate) or draw.samples == 1)
    ):
        return None
    key = state.position[:number] * tasks + task[:number]
    grid = _Grid(key, states, tasks)
    if not grid.distinct:
        return None
    sets, weight, flips = _gates(gated, task[:number], draw, grid)
    taught = sets[0].any(dim=2)
    rest = torch.ones_like(taught) if flips else sets.any(dim=0).any(dim=2)
    table, whole = _table(gated, head, state.values, taught, rest)
    bias = head.stacked()[1].T
    shift, scale = head.shift.T, head.scale.T
    # [M, S, 1, N] times [M, S, C, N]
    first = (torch.where(sets[0], weight, 0.0).unsqueeze(2) * table).sum(dim=0) + bias
    scores = [grid.questions((first * scale + shift).unsqueeze(0))]
    if draw.samples > 1:
        with torch.no_grad():
            if flips:
                change = torch.where(sets[0], -weight, weight).unsqueeze(2) * whole
                others = first + change
            else:
                mixed = [
                    (torch.where(opened, weight, 0.0).unsqueeze(2) * whole).sum(0) for opened in sets[1:]
                ]
                others = torch.stack(mixed) + bias
            scores.append(grid.questions(others * scale + shift))
    return torch.cat(scores) if len(scores) > 1 else scores[0]


class _Grid:
    """Questions by their state and task."""

    def __init__(self, key: Tensor, states: int, tasks: int) -> None:
        """Take each question's state times N, plus its task, ``[Q]``."""
        self._key, self._states, self._tasks = key, states, tasks

    @property
    def distinct(self) -> bool:
        """Whether no task is asked twice about a state."""
        return int(torch.bincount(self._key, minlength=1).max()) <= 1

    def spread(self, values: Tensor) -> Tensor:
        """Return ``[.., Q, M]`` as ``[.., M, S, N]``, 0 or False where nothing is asked."""
        spread = values.new_zeros((*values.shape[:-2], self._states * self._tasks, values.shape[-1]))
        spread = spread.index_copy(values.dim() - 2, self._key, values)
        return spread.transpose(-1, -2).reshape(*values.shape[:-2], -1, self._states, self._tasks)

    def questions(self, scores: Tensor) -> Tensor:
        """Return scores ``[K, S, C, N]`` as ``[K * Q, C]``."""
        rows = scores.transpose(2, 3).flatten(1, 2)
        return rows[:, self._key].flatten(0, 1)


def _gates(gated: GatedStage, task: Tensor, draw: Draw, grid: _Grid) -> tuple[Tensor, Tensor, bool]:
    """Draw: return the sets of open gates ``[K, M, S, N]``, their weights, and whether each flips one gate.

    The weights are ``[M, S, N]`` or may be expanded to it; of sets that flip a gate there is the first only.
    """
    gate = gated.gate
    if not isinstance(gate, BernoulliGate):
        chosen, weight = gate(task, draw)
        return grid.spread(chosen.unsqueeze(0)), grid.spread(weight), False
    logits = nn.functional.embedding(task, gate.logits)
    flips = isinstance(draw, LocalDraw) and draw.samples == 1 + gated.draws
    if isinstance(draw, LocalDraw) and flips:
        sets = draw.flips(logits).unsqueeze(0)
    else:
        sets = draw.bernoulli(logits).reshape(draw.samples, len(task), -1)
    return grid.spread(sets), gate.mixture.T.unsqueeze(1), flips


def _table(
    gated: GatedStage, head: HeadStage, values: Tensor, taught: Tensor, needed: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what all heads say of the experts' features, ``[M, S, C, N]``, but for their bias.

    Once with gradients of what is taught, bool ``[M, S]``, 0 elsewhere; and once without, of all needed.
    """
    heads = head.stacked()[0].permute(1, 2, 0)
    side_by_side = heads.flatten(1)
    shape = (*taught.shape, *heads.shape[1:])
    if int(taught.sum()) >= _MOST * taught.numel():
        features = gated.bank.run_each(values.unsqueeze(0))
        table = (features.flatten(0, 1) @ side_by_side).reshape(shape)
        return table, table.detach()
    table = _of_pairs(gated, side_by_side, values, taught).reshape(shape)
    rest = needed & ~taught
    if not bool(rest.any()):
        return table, table.detach()
    with torch.no_grad():
        return table, table + _of_pairs(gated, side_by_side, values, rest).reshape(shape)


def _of_pairs(gated: GatedStage, heads: Tensor, values: Tensor, wanted: Tensor) -> Tensor:
    """Run the experts for the states where wanted, bool ``[M, S]``, ``-> [M * S, C * N]``."""
    block, position = wanted.nonzero(as_tuple=True)
    features = gated.bank.run(values.index_select(0, position), block)
    empty = heads.new_zeros((wanted.numel(), heads.shape[1]))
    return empty.index_copy(0, block * wanted.shape[1] + position, features @ heads)
