"""A transformer encoder (Vaswani et al. 2017, "Attention Is All You Need"), normalised before each part."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from coterie.runtime.errors import ConfigError
from coterie.training.blocks._base import Block, BlockConfig
from coterie.training.blocks._linear import Rate, Width
from coterie.training.blocks._sequence import Pool, Pooling, masked_softmax, present, sequence_width
from coterie.training.blocks._shapes import InputShape


class TransformerConfig(BlockConfig):
    """Layers of self-attention over a sequence."""

    kind: Literal["transformer"] = "transformer"
    width: Width = 64
    """Size of a state, E; a multiple of ``heads``, and even."""
    layers: Width = 2
    heads: Width = 4
    hidden: Width | None = None
    """Size of the hidden layer of each position's own network; 4 E when not given."""
    pool: Literal["mean", "max", "attention", "none"] = "mean"
    positions: Annotated[float, Field(ge=0)] = 1.0
    """How strongly the sine waves that tell positions apart are added; 0 reads the words in no order."""
    dropout: Rate = 0.0

    def build(self, shape: InputShape) -> Transformer:
        """Make the encoder for sequences ``(L, D)``."""
        return Transformer(self, shape)


class Transformer(Block):
    """``[R, L, D] -> [R, E]``, or ``[R, L, E]`` with ``pool: none``; padding is not attended to."""

    def __init__(self, config: TransformerConfig, shape: InputShape) -> None:
        super().__init__()
        size = sequence_width(shape, "transformer")
        if config.width % config.heads or config.width % 2:
            raise ConfigError(
                f"width: {config.width} cannot be divided among {config.heads} heads and two kinds of waves: "
                "take an even multiple of the heads"
            )
        self.entry = nn.Linear(size, config.width)
        self.positions = config.positions
        hidden = config.hidden or 4 * config.width
        self.layers = nn.ModuleList(
            TransformerLayer(config.width, config.heads, hidden, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)
        pool: Pool = config.pool
        self.pooling = Pooling(pool, config.width)

    def forward(self, states: Tensor) -> Tensor:
        """Read ``[R, L, D]``."""
        mask = present(states)
        states = self.entry(states)
        states = states + self.positions * _waves(states)
        for layer in self.layers:
            states = layer(states, mask)
        result: Tensor = self.pooling(self.norm(states) * mask.unsqueeze(-1), mask)
        return result


class TransformerLayer(nn.Module):
    """Self-attention, then a network for each position, ``[R, L, E] -> [R, L, E]``; both add to states."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_network = nn.LayerNorm(width), nn.LayerNorm(width)
        self.entry, self.exit = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.network = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Read ``[R, L, E]`` where ``mask`` ``[R, L]``."""
        states = states + self.dropout(self._attend(self.before_attention(states), mask))
        result: Tensor = states + self.dropout(self.network(self.before_network(states)))
        return result

    def _attend(self, states: Tensor, mask: Tensor) -> Tensor:
        divided = self.entry(states).unflatten(-1, (3, self.heads, -1))
        query, key, value = (part.transpose(1, 2) for part in divided.unbind(2))
        scores = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(query.shape[-1])
        mixed = torch.matmul(masked_softmax(scores, mask[:, None, None, :]), value)
        result: Tensor = self.exit(mixed.transpose(1, 2).flatten(2))
        return result


def _waves(states: Tensor) -> Tensor:
    """Return sine and cosine waves of each position, ``[L, E]`` (section 3.5)."""
    half = states.shape[-1] // 2
    speed = torch.exp(torch.arange(half, device=states.device) * (-math.log(10_000.0) / half))
    angle = torch.arange(states.shape[1], device=states.device).unsqueeze(1) * speed
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
