"""A bag of word n-grams (Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification")."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from coterie.runtime.errors import ConfigError
from coterie.training.blocks._activations import Activation, activation_module
from coterie.training.blocks._base import Block, BlockConfig
from coterie.training.blocks._linear import Rate, Width
from coterie.training.blocks._shapes import InputShape

_PRIMES = (1_000_003, 7_919, 104_729)


class NgramBagConfig(BlockConfig):
    """Embeddings of words and hashed word n-grams, summed over the text."""

    kind: Literal["ngram_bag"] = "ngram_bag"
    width: Width
    """Size of an embedding, D."""
    ngrams: Annotated[int, Field(ge=1, le=3)] = 2
    """Longest n-gram."""
    buckets: Annotated[int, Field(ge=1)] = 1 << 18
    """Number of rows that the n-grams of two and more words are hashed to."""
    weighted: bool = True
    """Whether each n-gram also has a learned weight."""
    start: Literal["ones", "log_ratio"] = "ones"
    """What those weights begin at: 1, or what each n-gram tells of the labels. Then a row belongs to the
    n-gram of the training data that tells most of those hashed to it; n-grams without a row are left out."""
    weight_rate: Annotated[float, Field(gt=0)] = 6.0
    """Learning rate of those weights, in multiples of the stage's."""
    activation: Activation = "tanh"
    token_dropout: Rate = 0.0
    """Share of the n-grams left out while training."""
    dropout: Rate = 0.0
    """Share of the outputs set to zero while training."""

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        if self.start != "ones" and not self.weighted:
            raise ValueError("start: is of the learned weights: leave weighted: false out")
        return self

    def build(self, shape: InputShape) -> NgramBag:
        """Make the bag for tokens ``(L,)``."""
        return NgramBag(self, shape)


class NgramBag(Block):
    """Token ids ``[R, L]`` (0 is padding) ``-> [R, D]``.

    With an embedding e_g and a weight v_g for every n-gram g of a text: act(sum v_g e_g / |v| + c), where |v|
    is the Euclidean norm over the text's n-grams, so that long texts and short ones have states of one size.
    """

    def __init__(self, config: NgramBagConfig, shape: InputShape) -> None:
        super().__init__()
        if not shape.tokens or len(shape.dims) != 1:
            raise ConfigError(f"block 'ngram_bag' takes tokens (length,), but its input is {shape}")
        self.vocabulary = shape.vocabulary
        self.ngrams = config.ngrams
        self.buckets = config.buckets
        self.token_dropout = config.token_dropout
        rows = self.vocabulary + (config.buckets if config.ngrams > 1 else 0)
        self.embedding = nn.Parameter(torch.randn(rows, config.width) * 0.01)
        self.bias = nn.Parameter(torch.zeros(config.width))
        if config.weighted:
            self.weight = nn.Parameter(torch.ones(rows))
            self.rates = {"weight": config.weight_rate}
        self.weighted = config.weighted
        self.owned = config.start == "log_ratio"
        if self.owned:
            # Nobody's, until the training data says whose; int64 as the keys.
            self.register_buffer("owner", torch.zeros(rows, dtype=torch.int64))
            self.owner: Tensor
        self.activation = activation_module(config.activation)
        self.dropout = nn.Dropout(config.dropout)

    def keys(self, tokens: Tensor) -> Tensor:
        """Return the n-grams of each text, ``[R, L] -> [R, n * L]``; 0 is none.

        A word's key is its id. Those of longer n-grams are larger, and hardly ever the same for two of them.
        """
        found = [tokens]
        length = tokens.shape[1]
        for size in range(2, self.ngrams + 1):
            # Padding by the n-gram's reach on the right keeps any length legal, and adds no n-gram.
            padded = nn.functional.pad(tokens, (0, size - 1))
            hashed, whole = tokens * _PRIMES[0], tokens > 0
            for step in range(1, size):
                word = padded[:, step : step + length]
                hashed = hashed + word * _PRIMES[step]
                whole = whole & (word > 0)
            found.append(torch.where(whole, hashed + self.vocabulary, torch.zeros_like(hashed)))
        return torch.cat(found, dim=1)

    def rows(self, keys: Tensor) -> Tensor:
        """Return the row of the embedding that each key, of any shape, is hashed to."""
        return torch.where(
            keys < self.vocabulary, keys, (keys - self.vocabulary) % self.buckets + self.vocabulary
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Map token ids ``[R, L]`` to ``[R, D]``."""
        keys = self.keys(tokens)
        ids, present = self.rows(keys), keys > 0
        if self.owned:
            present = present & (self.owner[ids] == keys)
        if self.training and self.token_dropout > 0:
            present = present & (torch.rand(present.shape, device=present.device) >= self.token_dropout)
        weight = present.to(self.embedding.dtype)
        if self.weighted:
            weight = weight * self.weight[ids]
        summed = torch.matmul(weight.unsqueeze(1), nn.functional.embedding(ids, self.embedding)).squeeze(1)
        norm = (weight * weight).sum(dim=1, keepdim=True).clamp(min=1e-6).sqrt()
        result: Tensor = self.dropout(self.activation(summed / norm + self.bias))
        return result
