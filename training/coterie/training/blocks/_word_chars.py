"""Words and their characters (Ma and Hovy 2016, "End-to-end Sequence Labeling via LSTM-CNNs-CRF")."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from coterie.runtime.errors import ConfigError
from coterie.training.blocks._base import Block, BlockConfig
from coterie.training.blocks._dropout import Dropout
from coterie.training.blocks._linear import Rate, Width
from coterie.training.blocks._shapes import InputShape

_UNKNOWN = 1
_ODD = 0x9E3779B1


class WordCharsConfig(BlockConfig):
    """An embedding of each word, and a convolution over its characters."""

    kind: Literal["word_chars"] = "word_chars"
    width: Width = 100
    """Size of a word's embedding."""
    characters: Width = 25
    """Size of a character's embedding."""
    filters: Width = 50
    """Filters of the convolution over the characters."""
    kernel: int = Field(default=3, ge=1)
    """Its width, in characters."""
    word_dropout: Rate = 0.0
    """Share of the words that are read as unknown ones while training; their characters stay."""
    dropout: Rate = 0.0
    """Share of the outputs set to zero while training."""

    def build(self, shape: InputShape) -> WordChars:
        """Make the block for words with characters ``(L, 1 + W)``."""
        return WordChars(self, shape)


class WordChars(Block):
    """Ids of words and of their characters ``[R, L, 1 + W] -> [R, L, D]``, D = ``width`` + ``filters``.

    Padding, a word of id 0, is zeros. What fills up a short word has an embedding like any character: it
    tells where the word ends.
    """

    def __init__(self, config: WordCharsConfig, shape: InputShape) -> None:
        super().__init__()
        if not shape.tokens or len(shape.dims) != 2 or shape.characters == 0:
            raise ConfigError(
                f"block 'word_chars' takes words with their characters, but its input is {shape}: let the "
                "data's text be a column of lists of words"
            )
        self.words = nn.Parameter(torch.randn(shape.vocabulary, config.width) * 0.1)
        self.characters = nn.Parameter(torch.randn(shape.characters, config.characters) * 0.3)
        self.convolution = nn.Conv1d(
            config.characters, config.filters, config.kernel, padding=config.kernel // 2
        )
        self.filters = config.filters
        self.word_dropout = config.word_dropout
        self.dropout = Dropout(config.dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids ``[R, L, 1 + W]`` to ``[R, L, D]``."""
        word = ids[:, :, 0]
        there = word > 0
        if self.training and self.word_dropout > 0:
            dropped = torch.rand(word.shape, device=word.device) < self.word_dropout
            word = torch.where(there & dropped, torch.full_like(word, _UNKNOWN), word)
        read = self._spelling(ids[:, :, 1:], there)
        states = torch.cat([nn.functional.embedding(word, self.words), read], dim=2)
        result: Tensor = self.dropout(states, there)
        return result

    def _spelling(self, ids: Tensor, there: Tensor) -> Tensor:
        """Read characters ``[R, L, W]``, ``-> [R, L, filters]``."""
        if torch.onnx.is_in_onnx_export():
            return self._read(ids.flatten(0, 1)).reshape(*there.shape, self.filters)
        # Much of a batch of unlike lengths is padding, which need not be read; and many words come again.
        spelt = ids[there]
        first, word = _distinct(spelt)
        states = self.convolution.weight.new_zeros((*there.shape, self.filters))
        return states.index_put((there,), self._read(spelt[first]).index_select(0, word))

    def _read(self, ids: Tensor) -> Tensor:
        """Read the characters of each word, ``[T, W] -> [T, filters]``."""
        spelt = nn.functional.embedding(ids, self.characters)
        return torch.relu(torch.amax(self.convolution(spelt.transpose(1, 2)), dim=2))


def _distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return one of each of the distinct rows of ``[T, W]``, ``[U]``, and which of them each is, ``[T]``."""
    # Sorting numbers is far faster than sorting rows. Should two rows have one number, none are joined.
    factors = torch.arange(rows.shape[1], device=rows.device) * 2 + _ODD
    number = ((rows + 1) * factors.cumprod(0)).sum(dim=1)
    kinds, kind = torch.unique(number, return_inverse=True)
    every = torch.arange(len(rows), device=rows.device)
    first = every.new_zeros(len(kinds)).scatter_(0, kind, every)
    return (first, kind) if torch.equal(rows[first][kind], rows) else (every, every)
