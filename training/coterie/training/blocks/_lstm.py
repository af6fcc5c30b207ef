"""LSTM and BiLSTM over sequences (Hochreiter and Schmidhuber 1997; Graves and Schmidhuber 2005)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from coterie.training.blocks._base import Block, BlockConfig
from coterie.training.blocks._linear import Rate, Width
from coterie.training.blocks._recurrence import recur
from coterie.training.blocks._sequence import Pool, Pooling, lengths_of, present, sequence_width
from coterie.training.blocks._shapes import InputShape


class LstmConfig(BlockConfig):
    """An LSTM over a sequence, or over each sequence of several."""

    kind: Literal["lstm"] = "lstm"
    width: Width
    """Size of the state of one direction, H; a bidirectional one gives 2 H."""
    layers: Width = 1
    bidirectional: bool = False
    pool: Pool = "last"
    dropout: Rate = 0.0
    """Share of the numbers set to zero while training, after each layer."""

    def build(self, shape: InputShape) -> Lstm:
        """Make the network for sequences ``(L, D)`` or ``(S, L, D)``."""
        return Lstm(self, shape)


class Lstm(Block):
    """``[R, ..., L, D] -> [R, ..., H']``, or ``[R, ..., L, H']`` with ``pool: none``.

    Padding contributes nothing, and stays zeros; the backward direction starts at each row's own end.
    """

    def __init__(self, config: LstmConfig, shape: InputShape) -> None:
        super().__init__()
        size = sequence_width(shape, "lstm")
        directions = 2 if config.bidirectional else 1
        self.layers = nn.ModuleList()
        for _ in range(config.layers):
            self.layers.append(LstmLayer(size, config.width, directions))
            size = directions * config.width
        self.dropout = nn.Dropout(config.dropout)
        self.pooling = Pooling(config.pool, size, backward_from=config.width)

    def forward(self, states: Tensor) -> Tensor:
        """Read ``[R, ..., L, D]``."""
        mask = present(states)
        for layer in self.layers:
            states = self.dropout(layer(states, mask))
        result: Tensor = self.pooling(states, mask)
        return result


class LstmLayer(nn.Module):
    """One layer, ``[..., L, D] -> [..., L, H']``.

    Weights are uniform in +-1 / sqrt(H); a forget gate's bias begins at 1 (Jozefowicz et al. 2015), so that
    what was read early in a long text is not lost before anything is learned.
    """

    def __init__(self, size: int, width: int, directions: int) -> None:
        super().__init__()
        self.weights = nn.ParameterList()
        for _ in range(directions):
            for shape in ((4 * width, size), (4 * width, width), (4 * width,)):
                self.weights.append(nn.Parameter((2 * torch.rand(shape) - 1) / width**0.5))
            with torch.no_grad():
                self.weights[-1][width : 2 * width] = 1.0

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Read ``[..., L, D]`` where ``mask`` ``[..., L]``; results elsewhere are zeros."""
        rows = states.flatten(0, -3)
        results = recur(rows, lengths_of(mask).flatten(), list(self.weights))
        # What stands between present positions is not read over, but is padding all the same.
        results = results.reshape(*states.shape[:-1], results.shape[-1])
        return results * mask.unsqueeze(-1)
