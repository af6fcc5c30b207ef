"""One layer of many LSTMs of one size, stepped together.

A step of a small LSTM is far too little work for a call. B of them in G directions step together: a product
of all of them with their states is one call, whatever B is. Rows are sorted by length, so that a step
computes those only that have not ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


def recur_each(states: Tensor, lengths: Tensor, weights: list[Tensor]) -> Tensor:
    """Run B LSTMs with forget gates over sequences, as ``recur`` runs one.

    Args:
        states: ``[K, R, L, D]``; the first B / K LSTMs read the first of them, and so on.
        lengths: ``[K, R]`` int64, how many positions to read; the others' results are zeros.
        weights: For each direction in turn ``[B, 4H, D]``, ``[B, 4H, H]`` and ``[B, 4H]``, gates in torch's
            order. A second direction reads each row from its own end.

    Returns:
        ``[B, R, L, G * H]`` for G directions.
    """
    blocks, size, directions = len(weights[1]), weights[1].shape[2], len(weights) // 3
    rows, length = states.shape[1:3]
    longest = int(lengths.max()) if lengths.numel() else 0
    if longest == 0:
        return states.new_zeros((blocks, rows, length, directions * size))
    order = _Order.of(lengths, length, longest, directions, blocks)
    stacked = [torch.stack([_gates(each) for each in weights[kind::3]], dim=1) for kind in range(3)]
    grouped = [each.reshape(order.columns, -1, *each.shape[1:]).transpose(1, 2) for each in stacked]
    result: Tensor = _Recurrence.apply(states, *grouped, order)  # type: ignore[no-untyped-call]
    return result


def _gates(weight: Tensor) -> Tensor:
    """Put the cells' gate last, and twice as large, ``[B, 4H, ...]``: ``tanh x = 2 sigmoid 2x - 1``.

    On a CPU, sigmoid takes a fraction of the time that tanh does, and all gates are one call.
    """
    entry, forget, cell, output = weight.chunk(4, dim=1)
    return torch.cat([entry, forget, output, 2 * cell], dim=1)


@dataclass(frozen=True)
class _Order:
    """Which position is read when: P steps of rows, the rows of one time in a row, the longest first.

    Attributes:
        columns: K.
        each: LSTMs that read one of them, B / K.
        directions: G.
        counts: Rows that are read at each time; they add up to P.
        source: ``[K, G, P]``, the position read, of R * L.
        sink: ``[K, G, R * L]``, the step that a position's result comes from; P where there is none.
        ended: ``[K, G, P]`` bool where a row has ended, or None where none has: of K columns one may end
            before another.
    """

    columns: int
    each: int
    directions: int
    counts: list[int]
    source: Tensor
    sink: Tensor
    ended: Tensor | None

    @classmethod
    def of(cls, lengths: Tensor, length: int, longest: int, directions: int, blocks: int) -> _Order:
        """Sort rows ``[K, R]``."""
        columns, rows = lengths.shape
        ends, row = lengths.sort(dim=1, descending=True, stable=True)
        time = torch.arange(longest, device=lengths.device)
        counts = (ends.amax(dim=0) > time.unsqueeze(1)).sum(dim=1)
        step = time.repeat_interleave(counts)
        slot = torch.arange(len(step), device=step.device) - (counts.cumsum(0) - counts)[step]
        end, first = ends[:, slot], row[:, slot] * length
        source = torch.stack([first + step, first + (end - 1 - step).clamp(min=0)][:directions], dim=1)
        ended = (step >= end).unsqueeze(1).expand_as(source)
        steps = torch.arange(len(step), device=step.device).expand_as(source)
        sink = torch.full((columns, directions, rows * length + 1), len(step), device=step.device)
        sink.scatter_(2, source.masked_fill(ended, rows * length), steps)
        return cls(
            columns=columns,
            each=blocks // columns,
            directions=directions,
            counts=counts.tolist(),
            source=source,
            sink=sink[..., :-1],
            ended=ended if bool(ended.any()) else None,
        )

    def read(self, values: Tensor) -> Tensor:
        """Bring positions ``[K, R * L, D]`` into the order of steps, ``[K * G, P, D]``."""
        start = torch.arange(self.columns, device=values.device)[:, None, None] * values.shape[1]
        flat = values.flatten(0, 1).index_select(0, (self.source + start).flatten())
        return flat.reshape(self.columns * self.directions, -1, values.shape[2])

    def unread(self, steps: Tensor) -> Tensor:
        """Add up what steps ``[K * G, P, D]`` say of each position, ``-> [K, R * L, D]``."""
        ended = torch.nn.functional.pad(steps, (0, 0, 0, 1))
        start = torch.arange(len(steps), device=steps.device).reshape(self.columns, -1, 1) * ended.shape[1]
        taken = ended.flatten(0, 1).index_select(0, (self.sink + start).flatten())
        return taken.reshape(*self.sink.shape, -1).sum(dim=1)

    def write(self, hidden: Tensor) -> Tensor:
        """Bring states ``[K * G * B / K, P + 1, H]``, the last zeros, to positions ``[B, R * L, G * H]``."""
        start = torch.arange(len(hidden), device=hidden.device) * hidden.shape[1]
        index = self.sink.unsqueeze(2) + start.reshape(self.columns, self.directions, self.each, 1)
        index = index.permute(0, 2, 3, 1)
        taken = hidden.flatten(0, 1).index_select(0, index.flatten())
        return taken.reshape(self.columns * self.each, self.sink.shape[2], -1)

    def unwrite(self, grad: Tensor) -> Tensor:
        """Bring a gradient ``[B, R * L, G * H]`` into the order of steps, ``[K * G * B / K, P, H]``."""
        places = grad.shape[1] * self.directions
        direction = torch.arange(self.directions, device=grad.device)[:, None, None]
        block = torch.arange(len(grad), device=grad.device).reshape(self.columns, 1, self.each, 1)
        index = self.source.unsqueeze(2) * self.directions + direction + block * places
        flat = grad.reshape(len(grad) * places, -1)
        steps = flat.index_select(0, index.flatten()).reshape(*index.shape, -1)
        if self.ended is not None:
            steps = steps * ~self.ended[:, :, None, :, None]
        return steps.flatten(0, 2)


class _Recurrence(torch.autograd.Function):
    """The recurrence and its gradient; what a step needs of another is all that is computed step by step."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes them so
        ctx: Any, states: Tensor, inputs: Tensor, recurrent: Tensor, bias: Tensor, order: _Order
    ) -> Tensor:
        """Run ``[K, R, L, D]`` with weights ``[K, G, B / K, 4H, ...]``, ``-> [B, R, L, G * H]``."""
        size = recurrent.shape[-1]
        given = order.read(states.flatten(1, 2))
        wide = inputs.reshape(len(given), -1, inputs.shape[-1])
        entry = torch.baddbmm(bias.reshape(len(given), 1, -1), given, wide.transpose(1, 2))
        entry = entry.reshape(*entry.shape[:2], order.each, 4 * size).transpose(1, 2)
        back = recurrent.reshape(-1, *recurrent.shape[-2:]).transpose(1, 2)
        steps = given.shape[1]
        gates = given.new_empty((len(back), steps, 4 * size))
        cells, curved = given.new_empty((2, len(back), steps, size)).unbind(0)
        hidden = given.new_empty((len(back), steps + 1, size))
        hidden[:, steps] = 0
        done, before = 0, 0
        for count in order.counts:
            now = slice(done, done + count)
            score = entry[:, :, now].reshape(len(back), count, -1)
            if done:
                score = score.baddbmm_(hidden[:, before : before + count], back)
            torch.sigmoid(score, out=gates[:, now])
            enter, forget, leave, new = torch.split(gates[:, now], size, dim=2)
            new.mul_(2).sub_(1)
            cell = torch.mul(enter, new, out=cells[:, now])
            if done:
                cell.addcmul_(forget, cells[:, before : before + count])
            curve = torch.mul(cell, 2, out=curved[:, now]).sigmoid_().mul_(2).sub_(1)
            torch.mul(leave, curve, out=hidden[:, now])
            before, done = done, done + count
        ctx.save_for_backward(given, inputs, recurrent, gates, cells, curved, hidden)
        ctx.order = order
        return order.write(hidden).reshape(-1, *states.shape[1:3], order.directions * size)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Tensor, None]:
        """Go back through time."""
        given, inputs, recurrent, gates, cells, curved, hidden = ctx.saved_tensors
        order: _Order = ctx.order
        size, counts = recurrent.shape[-1], order.counts
        first = counts[0]
        # The step before, of each step but those of the first time.
        before = torch.cat([torch.arange(a, a + n) for a, n in _before(counts)]).to(given.device)
        slopes, through = _slopes(gates, cells, curved, before, first)
        forget = gates[..., size : 2 * size]
        back = recurrent.reshape(-1, *recurrent.shape[-2:])
        wanted = order.unwrite(grads[0].flatten(1, 2))
        done, later, state, cell = wanted.shape[1], 0, None, None
        for count in reversed(counts):
            now = slice(done - count, done)
            rise = wanted[:, now]
            if state is not None and cell is not None:
                rise[:, :later] += state
                inner = rise * through[:, now]
                inner[:, :later] += cell
            else:
                inner = rise * through[:, now]
            slope = slopes[:, now]
            torch.unflatten(slope[..., : 2 * size], 2, (2, size)).mul_(inner.unsqueeze(2))
            slope[..., 2 * size : 3 * size].mul_(rise)
            slope[..., 3 * size :].mul_(inner)
            if done > count:
                state, cell = torch.bmm(slope, back), inner * forget[:, now]
            done, later = done - count, count
        by_column = slopes.reshape(len(given), order.each, *slopes.shape[1:])
        to_input = torch.stack(
            [torch.bmm(by_column[:, each].transpose(1, 2), given) for each in range(order.each)], dim=1
        )
        to_states = None
        if ctx.needs_input_grad[0]:
            weights = inputs.flatten(0, 1)
            total = torch.bmm(by_column[:, 0], weights[:, 0])
            for each in range(1, order.each):
                total.baddbmm_(by_column[:, each], weights[:, each])
            to_states = order.unread(total).reshape(order.columns, *grads[0].shape[1:3], -1)
        to_state = torch.bmm(slopes[:, first:].transpose(1, 2), hidden[:, before])
        return (
            to_states,
            to_input.reshape(inputs.shape),
            to_state.reshape(recurrent.shape),
            slopes.sum(dim=1).reshape(recurrent.shape[:-1]),
            None,
        )


def _before(counts: list[int]) -> list[tuple[int, int]]:
    """Return where the steps before those of each time but the first begin, and how many they are."""
    found, start = [(0, 0)], 0
    for count, following in pairwise(counts):
        found.append((start, following))
        start += count
    return found


def _slopes(
    gates: Tensor, cells: Tensor, curved: Tensor, before: Tensor, first: int
) -> tuple[Tensor, Tensor]:
    """Return all that does not depend on later steps.

    That is what gates' scores change of the cell, or of the state, ``[., P, 4H]``; and what the cell changes
    of the state, ``[., P, H]``.
    """
    size = cells.shape[2]
    enter, forget, leave, new = torch.split(gates, size, dim=2)
    slopes = torch.empty_like(gates)
    to_enter, to_forget, to_leave, to_new = torch.split(slopes, size, dim=2)
    torch.mul(enter, 1 - enter, out=to_enter).mul_(new)
    torch.mul(forget[:, first:], 1 - forget[:, first:], out=to_forget[:, first:]).mul_(cells[:, before])
    to_forget[:, :first] = 0
    torch.mul(leave, 1 - leave, out=to_leave).mul_(curved)
    # Half of it: the score is twice what tanh is taken of.
    torch.mul(new, new, out=to_new).neg_().add_(1).mul_(enter).mul_(0.5)
    return slopes, torch.mul(curved, curved).neg_().add_(1).mul_(leave)
