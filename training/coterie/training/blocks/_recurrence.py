"""One LSTM layer over rows of unlike lengths: fast in training, one operator in ONNX."""

from __future__ import annotations

import torch
from torch import Tensor

_TOGETHER = 16
"""Rows that step together, each group no longer than its longest row."""


def recur(states: Tensor, lengths: Tensor, weights: list[Tensor]) -> Tensor:
    """Run an LSTM with forget gates (Gers, Schmidhuber and Cummins 2000) over sequences.

    Args:
        states: ``[R, L, D]``.
        lengths: ``[R]`` int64, how many positions to read; the others' results are zeros.
        weights: For each direction in turn ``[4H, D]``, ``[4H, H]`` and ``[4H]``, gates in torch's order:
            input, forget, cell, output. A second direction reads each row from its own end.

    Returns:
        ``[R, L, G * H]`` for G directions.
    """
    if torch.onnx.is_in_onnx_export():
        return _operator(states, lengths, weights)
    # On a CPU, padded matrices are several times faster than torch's packed sequences. So that a long row
    # costs its neighbours little, rows of similar lengths go together; empty ones are left out.
    order = lengths.argsort()[int((lengths == 0).sum()) :]
    result = states.new_zeros((*states.shape[:2], weights[1].shape[1] * (len(weights) // 3)))
    if len(order) == 0:
        return result
    groups = zip(torch.split(states[order], _TOGETHER), torch.split(lengths[order], _TOGETHER), strict=True)
    parts = [_layer(part[:, : int(ends[-1])], ends, weights) for part, ends in groups]
    padded = [torch.nn.functional.pad(part, (0, 0, 0, states.shape[1] - part.shape[1])) for part in parts]
    return result.index_copy(0, order, torch.cat(padded))


def _layer(states: Tensor, lengths: Tensor, weights: list[Tensor]) -> Tensor:
    results = [_direction(states, weights[:3])]
    if len(weights) > 3:
        turned = _turned(lengths, states.shape[1]).unsqueeze(-1)
        backward = _direction(states.gather(1, turned.expand_as(states)), weights[3:])
        results.append(backward.gather(1, turned.expand_as(backward)))
    inside = torch.arange(states.shape[1], device=states.device) < lengths.unsqueeze(1)
    return torch.cat(results, dim=-1) * inside.unsqueeze(-1)


def _direction(states: Tensor, weights: list[Tensor]) -> Tensor:
    # The library has two biases, which are added up.
    named = [*weights, torch.zeros_like(weights[2])]
    # Not all of its kernels know narrow numbers.
    with torch.autocast(states.device.type, enabled=False):
        states = states.to(weights[0].dtype)
        start = states.new_zeros((1, len(states), weights[1].shape[1]))
        return torch.lstm(states, (start, start), named, True, 1, 0.0, torch.is_grad_enabled(), False, True)[
            0
        ]


def _turned(lengths: Tensor, length: int) -> Tensor:
    """Return which position comes when, each row read from its end, ``[R] -> [R, L]``; its own inverse."""
    steps = torch.arange(length, device=lengths.device)
    ends = lengths.unsqueeze(1)
    return torch.where(steps < ends, ends - 1 - steps, steps)


def _operator(states: Tensor, lengths: Tensor, weights: list[Tensor]) -> Tensor:
    """Write the operator itself, which reads lengths: torch's exporter unrolls it into something else."""
    rows, length, _ = states.shape
    directions, size = len(weights) // 3, weights[1].shape[1]
    inputs, recurrents, biases = (
        torch.stack([_reordered(weight) for weight in weights[kind::3]]) for kind in range(3)
    )
    result = torch.onnx.ops.symbolic(
        "LSTM",
        [
            states.transpose(0, 1),
            inputs,
            recurrents,
            torch.cat([biases, torch.zeros_like(biases)], dim=1),
            lengths.to(torch.int32),
        ],
        {"hidden_size": size, "direction": "forward" if directions == 1 else "bidirectional"},
        dtype=states.dtype,
        shape=(length, directions, rows, size),
    )
    return result.permute(2, 0, 1, 3).reshape(rows, length, directions * size)


def _reordered(weight: Tensor) -> Tensor:
    """Return gates in ONNX's order: input, output, forget, cell."""
    entry, forget, cell, output = weight.chunk(4)
    return torch.cat([entry, output, forget, cell])
