"""TextCNN (Kim 2014, "Convolutional Neural Networks for Sentence Classification")."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from coterie.runtime.errors import ConfigError
from coterie.training.blocks._base import Block, BlockConfig
from coterie.training.blocks._linear import Rate, Width
from coterie.training.blocks._sequence import present
from coterie.training.blocks._shapes import InputShape


class TextCnnConfig(BlockConfig):
    """Convolutions of several widths over word embeddings, each max-pooled over the text."""

    kind: Literal["textcnn"] = "textcnn"
    embedding: Width = 64
    """Size of a word embedding, E, where the input is tokens; a sequence of vectors needs none."""
    filters: Width = 64
    """Filters of each kernel."""
    kernels: Annotated[tuple[Width, ...], Field(min_length=1)] = (3, 4, 5)
    """Widths of the convolutions, in words."""
    dropout: Rate = 0.0

    def build(self, shape: InputShape) -> TextCnn:
        """Make the network for tokens ``(L,)`` or sequences ``(L, D)``."""
        return TextCnn(self, shape)


class TextCnn(Block):
    """Token ids ``[R, L]`` (0 is padding) or sequences ``[R, L, D]`` ``-> [R, filters * len(kernels)]``."""

    def __init__(self, config: TextCnnConfig, shape: InputShape) -> None:
        super().__init__()
        if len(shape.dims) != (1 if shape.tokens else 2) or (not shape.tokens and shape.dims[-1] is None):
            raise ConfigError(
                f"block 'textcnn' takes tokens (length,) or sequences (length, D), but its input is {shape}"
            )
        size = config.embedding if shape.tokens else int(shape.dims[-1] or 0)
        if shape.tokens:
            self.weight = nn.Parameter(torch.randn(shape.vocabulary, size) * 0.1)
        self.tokens = shape.tokens
        self.kernels = config.kernels
        self.convolutions = nn.ModuleList(
            nn.Conv1d(size, config.filters, kernel, padding=kernel - 1) for kernel in config.kernels
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: Tensor) -> Tensor:
        """Map token ids ``[R, L]``, or sequences ``[R, L, D]``, to ``[R, D']``."""
        read = (states > 0 if self.tokens else present(states)).unsqueeze(1)
        vectors = nn.functional.embedding(states, self.weight) if self.tokens else states
        inside = read.to(vectors.dtype)
        words = vectors.transpose(1, 2) * inside
        pooled = []
        for kernel, convolution in zip(self.kernels, self.convolutions, strict=True):
            # A window of padding alone would answer with the bias: a text's result would then depend on the
            # longest text beside it.
            reach = [inside[:, :, :1]] * (kernel - 1)
            window = torch.cat([*reach, inside], dim=2)
            pooled.append(torch.amax(torch.relu(convolution(words)) * window, dim=2))
        result: Tensor = self.dropout(torch.cat(pooled, dim=1))
        return result
