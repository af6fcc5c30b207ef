"""HAN (Yang et al. 2016, "Hierarchical Attention Networks for Document Classification")."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from coterie.runtime.errors import ConfigError
from coterie.training.blocks._base import Block, BlockConfig
from coterie.training.blocks._linear import Rate, Width
from coterie.training.blocks._lstm import Lstm, LstmConfig
from coterie.training.blocks._sequence import sequence_width
from coterie.training.blocks._shapes import InputShape


class HanConfig(BlockConfig):
    """A bidirectional LSTM and attention over the words of each sentence, and again over the sentences."""

    kind: Literal["han"] = "han"
    width: Width = 50
    """Size of the state of one direction, H."""
    dropout: Rate = 0.0
    """Share of the numbers set to zero while training, after each LSTM."""

    def build(self, shape: InputShape) -> Han:
        """Make the network for sentences of words ``(S, W, D)``."""
        return Han(self, shape)


class Han(Block):
    """``[R, S, W, D] -> [R, 2 H]``; an empty sentence is padding, and is not attended to."""

    def __init__(self, config: HanConfig, shape: InputShape) -> None:
        super().__init__()
        if len(shape.dims) != 3:
            raise ConfigError(
                f"block 'han' takes sentences of words (S, W, D), but its input is {shape}: set sentences of "
                "the block 'words' before it"
            )
        size = sequence_width(shape, "han")
        level = LstmConfig(width=config.width, bidirectional=True, pool="attention", dropout=config.dropout)
        sentences = InputShape(dims=(shape.dims[0], 2 * config.width))
        self.levels = nn.Sequential(
            Lstm(level, InputShape(dims=(shape.dims[1], size))), Lstm(level, sentences)
        )

    def forward(self, states: Tensor) -> Tensor:
        """Sum up ``[R, S, W, D]`` into sentences, and those into texts."""
        result: Tensor = self.levels(states)
        return result
