"""LSTM and BiLSTM over sequences (Hochreiter and Schmidhuber 1997; Graves and Schmidhuber 2005)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from coterie.training.blocks._base import Block, BlockConfig
from coterie.training.blocks._dropout import Dropout
from coterie.training.blocks._linear import Rate, Width
from coterie.training.blocks._recurrence import recur
from coterie.training.blocks._recurrences import recur_each
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
    dense: bool = False
    """Whether a layer gives what it takes beside its states (densely connected), with ``pool: none``."""
    dropout: Rate = 0.0
    """Share of the numbers set to zero while training, after each layer."""

    @model_validator(mode="after")
    def _sequence(self) -> Self:
        if self.dense and self.pool != "none":
            raise ValueError("dense: is for sequences; set pool: none, or leave dense out")
        return self

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
            size = directions * config.width + (size if config.dense else 0)
        self.dense = config.dense
        self.dropout = Dropout(config.dropout)
        self.pooling = Pooling(config.pool, size, backward_from=config.width)

    def forward(self, states: Tensor) -> Tensor:
        """Read ``[R, ..., L, D]``."""
        mask = present(states)
        for layer in self.layers:
            results = self.dropout(layer(states, mask), mask)
            states = torch.cat([states, results], dim=-1) if self.dense else results
        result: Tensor = self.pooling(states, mask)
        return result

    def run_each(self, weights: Mapping[str, Tensor], states: Tensor) -> Tensor | None:
        """Read ``[K, R, ..., L, D]`` with B networks, step by step together."""
        traced = torch.onnx.is_in_onnx_export() or torch.compiler.is_compiling()
        if traced or states.is_cuda or self.pooling.attention is not None:
            # On a GPU the library's own kernels are faster; and the attention of each is another.
            return None
        mask, lead = present(states), states.shape[1:-2]
        lengths = lengths_of(mask).flatten(1)
        for number in range(len(self.layers)):
            named = [name for name in weights if name.startswith(f"layers.{number}.")]
            results = recur_each(states.flatten(1, -3), lengths, [weights[name] for name in named])
            each = len(results) // len(mask)
            mask, lengths = mask.repeat_interleave(each, dim=0), lengths.repeat_interleave(each, dim=0)
            results = self.dropout(results.reshape(-1, *lead, *results.shape[2:]), mask)
            states = (
                torch.cat([states.repeat_interleave(each, dim=0), results], dim=-1) if self.dense else results
            )
        result: Tensor = self.pooling(states, mask)
        return result


class LstmLayer(nn.Module):
    """One layer, ``[..., L, D] -> [..., L, H']``; what it gives for padding between words means nothing.

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
        """Read ``[..., L, D]`` up to the last of ``mask`` ``[..., L]``; results after that are zeros."""
        rows = states.flatten(0, -3)
        results = recur(rows, lengths_of(mask).flatten(), list(self.weights))
        return results.reshape(*states.shape[:-1], results.shape[-1])
