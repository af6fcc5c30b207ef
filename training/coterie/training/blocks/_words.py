"""From token ids to word vectors, one sequence a text or one a sentence."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from coterie.runtime.errors import ConfigError
from coterie.training.blocks._base import Block, BlockConfig
from coterie.training.blocks._linear import Rate, Width
from coterie.training.blocks._shapes import InputShape
from coterie.training.yaml_config import AbsolutePath

Count = Annotated[int, Field(ge=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VectorTraining(_Frozen):
    """How word vectors are learned from the data's own texts, its unlabeled ones too (word2vec)."""

    epochs: Count = 5
    window: Count = 5
    """How many words to each side belong to a word's context."""
    negative: Count = 5
    """Words drawn for each one that is there."""
    skip_gram: bool = False
    """Whether a word is to tell its context (slower, better on little text), or the context the word."""


class SentenceOptions(_Frozen):
    """How a text is divided into sentences."""

    count: Count = 25
    """Longest text in sentences, S; the rest is cut."""
    words: Count = 50
    """Longest sentence in words, W; the rest is cut."""
    ends: tuple[str, ...] = (".", "!", "?")
    """The tokens that end a sentence; several in a row are one end."""


class WordsConfig(BlockConfig):
    """Word vectors: learned with the model, read from a file, or learned from the data's texts before it."""

    kind: Literal["words"] = "words"
    width: Width
    """Size of a vector, D."""
    vectors: AbsolutePath | None = None
    """A text file in GloVe's format: a line a word, the word and its D numbers between spaces."""
    train: VectorTraining | None = None
    """Learn the vectors from the data's texts before the training; needs the extra ``vectors``."""
    trainable: bool = True
    """Whether vectors go on being learned with the model; otherwise they are constants of it."""
    sentences: SentenceOptions | None = None
    """Divide each text: the result is ``[R, S, W, D]``."""
    dropout: Rate = 0.0

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.vectors is not None and self.train is not None:
            raise ValueError("give either vectors (a file) or train (learn them), not both")
        if not self.trainable and self.vectors is None and self.train is None:
            raise ValueError("trainable: false needs vectors from somewhere: give vectors, or train")
        return self

    def build(self, shape: InputShape) -> Words:
        """Make the table for tokens ``(L,)``."""
        return Words(self, shape)


class Words(Block):
    """Token ids ``[R, L]`` (0 is padding) ``-> [R, L, D]``, or ``[R, S, W, D]``; padding is zeros."""

    table: Tensor

    def __init__(self, config: WordsConfig, shape: InputShape) -> None:
        super().__init__()
        if not shape.tokens or len(shape.dims) != 1:
            raise ConfigError(f"block 'words' takes tokens (length,), but its input is {shape}")
        table = torch.randn(shape.vocabulary, config.width) * 0.1
        if config.trainable:
            self.table = nn.Parameter(table)
        else:
            self.register_buffer("table", table)
        self.sentences = None if config.sentences is None else Sentences(config.sentences, shape.words)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Look up token ids ``[R, L]``."""
        if self.sentences is not None:
            tokens = self.sentences(tokens)
        vectors = nn.functional.embedding(tokens, self.table)
        result: Tensor = self.dropout(vectors) * (tokens > 0).unsqueeze(-1)
        return result


class Sentences(nn.Module):
    """Token ids ``[R, L] -> [R, S, W]``, each sentence from its first word on, padded with 0."""

    ends: Tensor

    def __init__(self, config: SentenceOptions, words: tuple[str, ...]) -> None:
        super().__init__()
        self.count, self.words = config.count, config.words
        ids = [words.index(end) for end in config.ends if end in words]
        if not ids:
            raise ConfigError(
                f"sentences: none of the ends {', '.join(config.ends)} is a token of the data: set ends"
            )
        self.register_buffer("ends", torch.tensor(ids))

    def forward(self, tokens: Tensor) -> Tensor:
        """Divide texts ``[R, L]``."""
        rows, length = tokens.shape
        is_end = (tokens.unsqueeze(-1) == self.ends).any(dim=-1)
        after_end = nn.functional.pad(is_end.to(torch.int64), (1, 0))[:, :-1] > 0
        first = after_end & ~is_end
        number = first.to(torch.int64).cumsum(dim=1)
        # The first word of each sentence is at one place, so that no two of them write to one cell.
        kept = number.clamp(max=self.count)
        place = torch.arange(length, device=tokens.device).expand(rows, length)
        starts = torch.zeros((rows, self.count + 2), dtype=torch.int64, device=tokens.device)
        starts = starts.scatter(1, torch.where(first, kept, self.count + 1), place)
        within = place - starts.gather(1, kept)
        fits = (tokens > 0) & (number < self.count) & (within < self.words)
        # What does not fit goes to one cell behind all others.
        cells = self.count * self.words
        cell = torch.where(fits, number * self.words + within, cells)
        empty = torch.zeros((rows, cells + 1), dtype=torch.int64, device=tokens.device)
        return empty.scatter(1, cell, tokens)[:, :cells].reshape(rows, self.count, self.words)
