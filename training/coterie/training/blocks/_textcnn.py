"""TextCNN (Kim 2014, "Convolutional Neural Networks for Sentence Classification")."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from coterie.runtime.errors import ConfigError
from coterie.training.blocks._base import Block, BlockConfig
from coterie.training.blocks._linear import Rate, Width
from coterie.training.blocks._shapes import InputShape


class TextCnnConfig(BlockConfig):
    """Convolutions of several widths over word embeddings, each max-pooled over the text."""

    kind: Literal["textcnn"] = "textcnn"
    embedding: Width = 64
    """Size of a word embedding, E."""
    filters: Width = 64
    """Filters of each kernel."""
    kernels: Annotated[tuple[Width, ...], Field(min_length=1)] = (3, 4, 5)
    """Widths of the convolutions, in words."""
    dropout: Rate = 0.0

    def build(self, shape: InputShape) -> TextCnn:
        """Make the network for tokens ``(L,)``."""
        return TextCnn(self, shape)


class TextCnn(Block):
    """Token ids ``[R, L]`` (0 is padding) ``-> [R, filters * len(kernels)]``."""

    def __init__(self, config: TextCnnConfig, shape: InputShape) -> None:
        super().__init__()
        if not shape.tokens or len(shape.dims) != 1:
            raise ConfigError(f"block 'textcnn' takes tokens (length,), but its input is {shape}")
        self.weight = nn.Parameter(torch.randn(shape.vocabulary, config.embedding) * 0.1)
        self.kernels = config.kernels
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.embedding, config.filters, kernel, padding=kernel - 1)
            for kernel in config.kernels
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map token ids ``[R, L]`` to ``[R, D]``."""
        present = (tokens > 0).unsqueeze(1).to(self.weight.dtype)
        words = nn.functional.embedding(tokens, self.weight).transpose(1, 2) * present
        pooled = []
        for kernel, convolution in zip(self.kernels, self.convolutions, strict=True):
            # A window of padding alone would answer with the bias: a text's result would then depend on the
            # longest text beside it.
            reach = [present[:, :, :1]] * (kernel - 1)
            window = torch.cat([*reach, present], dim=2)
            pooled.append(torch.amax(torch.relu(convolution(words)) * window, dim=2))
        result: Tensor = self.dropout(torch.cat(pooled, dim=1))
        return result
