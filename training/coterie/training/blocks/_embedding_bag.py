"""A bag of word n-grams (Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification")."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from coterie.runtime.errors import ConfigError
from coterie.training.blocks._base import Block, BlockConfig
from coterie.training.blocks._linear import Rate, Width
from coterie.training.blocks._shapes import InputShape

_PRIMES = (1_000_003, 998_244_353, 754_974_721)


class NgramBagConfig(BlockConfig):
    """Embeddings of words and hashed word n-grams, summed over the text."""

    kind: Literal["ngram_bag"] = "ngram_bag"
    width: Width
    """Size of an embedding, D."""
    ngrams: Annotated[int, Field(ge=1, le=3)] = 2
    """Longest n-gram."""
    buckets: Annotated[int, Field(ge=1)] = 1 << 18
    """Number of rows that the n-grams of two and more words are hashed to."""
    token_dropout: Rate = 0.0
    """Share of the n-grams left out while training."""
    dropout: Rate = 0.0
    """Share of the outputs set to zero while training."""

    def build(self, shape: InputShape) -> NgramBag:
        """Make the bag for tokens ``(L,)``."""
        return NgramBag(self, shape)


class NgramBag(Block):
    """Token ids ``[R, L]`` (0 is padding) ``-> [R, D]``: the n-grams' embeddings, summed, over root of count."""

    def __init__(self, config: NgramBagConfig, shape: InputShape) -> None:
        super().__init__()
        if not shape.tokens or len(shape.dims) != 1:
            raise ConfigError(f"block 'ngram_bag' takes tokens (length,), but its input is {shape}")
        self.vocabulary = shape.vocabulary
        self.ngrams = config.ngrams
        self.buckets = config.buckets
        self.token_dropout = config.token_dropout
        rows = self.vocabulary + (config.buckets if config.ngrams > 1 else 0)
        self.weight = nn.Parameter(torch.randn(rows, config.width) * 0.05)
        self.dropout = nn.Dropout(config.dropout)

    def _ids(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the n-grams' ids and whether each is one, both ``[R, about n * L]``."""
        ids, present = [tokens], [tokens > 0]
        for size in range(2, self.ngrams + 1):
            # Padding by the n-gram's reach on the right keeps any length legal, and adds no n-gram.
            padded = nn.functional.pad(tokens, (0, size - 1))
            length = tokens.shape[1]
            hashed = tokens * _PRIMES[0]
            whole = tokens > 0
            for step in range(1, size):
                word = padded[:, step : step + length]
                hashed = hashed + word * _PRIMES[step]
                whole = whole & (word > 0)
            ids.append(torch.where(whole, hashed % self.buckets + self.vocabulary, torch.zeros_like(hashed)))
            present.append(whole)
        return torch.cat(ids, dim=1), torch.cat(present, dim=1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map token ids ``[R, L]`` to ``[R, D]``."""
        ids, present = self._ids(tokens)
        if self.training and self.token_dropout > 0:
            present = present & (torch.rand(present.shape) >= self.token_dropout)
        mask = present.to(self.weight.dtype)
        summed = torch.matmul(mask.unsqueeze(1), nn.functional.embedding(ids, self.weight)).squeeze(1)
        count = mask.sum(dim=1, keepdim=True).clamp(min=1.0)
        result: Tensor = self.dropout(summed / count.sqrt())
        return result
